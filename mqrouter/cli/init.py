"""`mqrouter init`: the starter configuration, copied."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from mqrouter.cli.common import Exit, fail
from mqrouter.errors import Problem
from mqrouter.starter import starter_dir


@click.command("init")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(folder: Path, *, force: bool) -> None:
    """Write a starting configuration to DIR (this folder without it).

    \b
    Example:
      mqrouter init ~/mqrouter
    """
    starter = starter_dir()
    names = sorted(path.relative_to(starter) for path in starter.rglob("*") if path.is_file())
    existing = [folder / name for name in names if (folder / name).exists()]
    if existing and not force:
        fail([_exists(path) for path in existing], Exit.FAILED)
    try:
        _copy(starter, folder, names)
    except OSError as error:
        code = Exit.NOPERM if isinstance(error, PermissionError) else Exit.FAILED
        fail([Problem("", f"cannot be written: {error.strerror}", str(error.filename or folder))], code)
    click.echo(_next_steps(folder, len(names)))


def _exists(path: Path) -> Problem:
    return Problem("", "exists already, nothing was written; --force overwrites it", str(path))


def _copy(starter: Path, folder: Path, names: list[Path]) -> None:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((starter / name).read_bytes())


def _next_steps(folder: Path, count: int) -> str:
    main = folder / "mqrouter.toml"
    option = "" if main == Path("mqrouter.toml") else f" -c {shlex.quote(str(main))}"
    return f"""\
{count} files written to {folder}. Next:
  1. {main}: set mqtt.host and the addresses of your tiers
  2. mqrouter models pull{option}     fetches the models this device needs
  3. mqrouter check{option}
  4. mqrouter run{option}"""
