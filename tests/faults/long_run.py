"""The frame of a command that runs for long, says how far it is, and ends with a report and an exit code."""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Say = Callable[[str], None]


class Report(Protocol):
    @property
    def is_ok(self) -> bool: ...

    def as_json(self) -> str: ...

    def as_text(self) -> str: ...


def parser(name: str, description: str, epilog: str, seed: str) -> ArgumentParser:
    found = ArgumentParser(
        prog=f"tools/{name}", description=description, epilog=epilog, formatter_class=RawDescriptionHelpFormatter
    )
    found.add_argument("--seed", type=int, default=1, metavar="S", help=f"{seed} (1)")
    found.add_argument("--json", action="store_true", help="the report as JSON")
    return found


def run_and_report(options: Namespace, run: Callable[[Path, Say], Any]) -> int:
    """Returns the exit code; the files of a run that went wrong are kept."""
    folder = Path(tempfile.mkdtemp(prefix="mqrouter-long-run-"))
    report: Report = run(folder, _say)
    _say("")
    sys.stdout.write((report.as_json() if options.json else report.as_text()) + "\n")
    if report.is_ok:
        shutil.rmtree(folder)
        return 0
    sys.stderr.write(f"its files are kept: {folder}\n")
    return 1


def _say(text: str) -> None:
    """One line that changes, on a terminal only."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        end = "" if text else "\r"
        sys.stderr.write(f"\r\033[K{text[:width]}{end}")
        sys.stderr.flush()
