"""Breaks the daemon on purpose, one line at a time, and says which tests notice. Run by tools/breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests/faults/breaks.toml"
LIMIT_S = 400.0


@dataclass(frozen=True, slots=True)
class Break:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_breaks() -> list[Break]:
    entries = tomllib.loads(TABLE.read_text(encoding="utf-8"))["breaks"]
    return [Break(entry["name"], entry["file"], entry["old"], entry["new"], tuple(entry["tests"])) for entry in entries]


@contextmanager
def broken(one: Break) -> Iterator[Path]:
    """A copy of the sources with this line broken."""
    with tempfile.TemporaryDirectory(prefix="mqrouter-broken-") as folder:
        shutil.copytree(ROOT / "mqrouter", Path(folder) / "mqrouter")
        file = Path(folder) / one.file
        text = file.read_text(encoding="utf-8")
        if text.count(one.old) != 1:
            raise SystemExit(f"breaks: {one.name}: {one.file} has its line {text.count(one.old)} times, not once")
        file.write_text(text.replace(one.old, one.new), encoding="utf-8")
        yield Path(folder)


def is_noticed(folder: Path, expression: str) -> tuple[bool, str]:
    """Returns whether a test of the expression fails there, and what pytest says in its last line."""
    # -P: without it the sources of this folder would come before the broken ones.
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "tests/faults",
        "-q",
        "-x",
        "-k",
        expression,
        "-p",
        "no:cacheprovider",
    ]
    env = os.environ | {"PYTHONPATH": str(folder), "CI": "1"}
    try:
        result = subprocess.run(
            command, check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return True, "hung"
    failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if result.returncode == 5:
        return False, "no such test"
    return result.returncode == 1, failed[0].split(" - ")[0] if failed else "passed"


@click.command("breaks")
@click.argument("words", nargs=-1)
def main(words: Sequence[str]) -> None:
    """Break the daemon on purpose and see the tests notice; with WORDS only breaks whose name or tests have them.

    \b
    Example:
      tools/breaks acknowledge
    """
    missed = 0
    for one in read_breaks():
        if words and not any(word in one.name or word in " ".join(one.tests) for word in words):
            continue
        with broken(one) as folder:
            for expression in one.tests:
                noticed, what = is_noticed(folder, expression)
                missed += not noticed
                click.echo(f"{'noticed' if noticed else 'MISSED '}  {one.name}  [{expression}]: {what}")
    if missed:
        click.echo(f"{missed} not noticed", err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
