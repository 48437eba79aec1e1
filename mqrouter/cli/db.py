"""mqrouter db: looking after the database."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.daemon import DaemonDownError, open_database
from mqrouter.cli.purge import database_alone, order
from mqrouter.cli.tables import format_bytes

REMEDIES = {
    True: "restart the daemon: it sets a damaged database aside and goes on with what reads",
    False: "the file reads well, but its rows contradict each other: please report this, with `mqrouter db backup`",
}
json_option = click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")


@click.group("db")
def command() -> None:
    """Check, back up, shrink or salvage the database.

    \b
    Examples:
      mqrouter db check
      mqrouter db backup /mnt/stick/mqrouter.db
    """
    os.umask(0o027)  # as the daemon: questions may be private


@command.command("check")
@config_option
@json_option
def check_command(config: Path | None, is_json: bool) -> None:
    """Check the database: SQLite's own look at all of it, and whether the rows agree. Exit 1 where they do not.

    Reads only; it is the same whether the daemon runs or not.

    \b
    Example:
      mqrouter db check
    """
    from mqrouter.edge.store.checking import check

    path = load_or_exit(config).settings.database
    with open_database(path) as db:
        try:
            found = check(db)
        except sqlite3.DatabaseError as error:
            nothing = {"requests": {}, "used_bytes": 0, "unused_bytes": 0}
            found = {"ok": False, "problems": [str(error)], "is_damaged": True} | nothing
    found["remedy"] = None if found["ok"] else REMEDIES[found["is_damaged"]]
    if is_json:
        echo_json(found)
    else:
        for problem in found["problems"]:
            click.echo(f"mqrouter: {path}: {problem}", err=True)
        click.echo(_summary(path, found))
    raise SystemExit(Exit.OK if found["ok"] else Exit.FAILED)


def _summary(path: Path, found: dict[str, Any]) -> str:
    if not found["ok"]:
        return f"{path} is NOT sound; {found['remedy']}"
    requests = sum(found["requests"].values())
    used, unused = format_bytes(found["used_bytes"]), format_bytes(found["unused_bytes"])
    return f"{path} is sound: {requests} requests, {used} in use, {unused} to be used again"


@command.command("backup")
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", "is_forced", is_flag=True, help="Replace FILE where it exists.")
def backup(config: Path | None, file: Path, is_forced: bool) -> None:
    """Copy the database to FILE: complete and as of one moment, also while the daemon writes.

    FILE comes into being whole or not at all. To go back to it, stop the daemon and put it in the database's place,
    without the files whose names end in -wal and -shm.

    \b
    Example:
      mqrouter db backup /mnt/stick/mqrouter-backup.db
    """
    from mqrouter.edge.store.checking import back_up

    settings = load_or_exit(config).settings
    if file.resolve() == settings.database.resolve():
        click.echo(f"mqrouter: {file} is the database itself: name another", err=True)
        raise SystemExit(Exit.USAGE)
    if file.exists() and not is_forced:
        click.echo(f"mqrouter: {file} exists: name another, or use --force", err=True)
        raise SystemExit(Exit.USAGE)
    with open_database(settings.database, is_any=True):
        pass  # says what the matter is where it cannot be read
    try:
        size = back_up(settings.database, file, _show_progress)
    except (sqlite3.Error, OSError) as error:
        click.echo(f"mqrouter: no backup was made: {error}", err=True)
        raise SystemExit(Exit.NOPERM if isinstance(error, PermissionError) else Exit.FAILED) from error
    finally:
        _show_progress(None)
    click.echo(f"wrote {file}: {format_bytes(size)}, checked")


def _show_progress(share: float | None) -> None:
    """On a terminal only; None wipes it."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K" if share is None else f"\r{share:4.0%}", nl=False, err=True)


@command.command("vacuum")
@config_option
def vacuum_command(config: Path | None) -> None:
    """Give unused space back to the file system: step by step while the daemon runs, all at once while it is down.

    While it is down the whole file is written anew; that takes as much free space as the database is large.

    \b
    Example:
      mqrouter db vacuum
    """
    settings = load_or_exit(config).settings
    try:
        reports = list(order(settings.control_socket, "vacuum"))
    except DaemonDownError:
        _vacuum_alone(settings.database)
        return
    freed = sum(report["freed_bytes"] for report in reports)
    click.echo(f"freed {format_bytes(freed)}")
    if not reports[-1]["can_shrink"]:
        click.echo("this database can only shrink while the daemon is down: stop it and run this again once", err=True)
        raise SystemExit(Exit.FAILED)


def _vacuum_alone(path: Path) -> None:
    from mqrouter.edge.store.offline import vacuum

    with database_alone(path) as db:
        freed = vacuum(db)
    click.echo(f"freed {format_bytes(max(0, freed))}")


@command.command("salvage")
@config_option
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), help="Keep what reads in this new database.")
@json_option
def salvage_command(config: Path | None, file: Path | None, into: Path | None, is_json: bool) -> None:
    """Count what still reads in a damaged database; without FILE in the one set aside last. Exit 3 if nothing does.

    The daemon does the same by itself when it finds damage at its start. FILE is not changed.

    \b
    Example:
      mqrouter db salvage --into rescued.db
    """
    from mqrouter.edge.store.quarantine import newest_quarantine
    from mqrouter.edge.store.salvage import salvage

    settings = load_or_exit(config).settings
    folder = newest_quarantine(settings.gateway.data_dir)
    source = file or (folder / settings.database.name if folder else None)
    if source is None or not source.exists():
        where = f"in {settings.gateway.data_dir / 'quarantine'}" if source is None else f"at {source}"
        click.echo(f"mqrouter: there is no damaged database {where}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if into is not None and into.exists():
        click.echo(f"mqrouter: {into} exists: name another", err=True)
        raise SystemExit(Exit.USAGE)
    with ExitStack() as stack:
        if source.resolve() == settings.database.resolve():
            stack.enter_context(database_alone(source))
        target = into or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "salvaged.db"
        found = salvage(source, target, reason="asked for", now_ms=int(1000 * time.time()))
    if is_json:
        echo_json(asdict(found) | {"into": None if into is None else str(into)})
    else:
        lost = sum(last - first + 1 for first, last in found.lost_ranges)
        click.echo(
            f"{source}: {found.requests} requests, {found.answers} answers and {found.history} history entries read;"
            f" {found.asked_again} answers are lost, {lost} requests are missing between others"
            + ("" if into is None else f"; they are in {into}")
        )
    raise SystemExit(Exit.OK if found.requests else Exit.NOTHING_FOUND)
