"""mqrouter queue purge."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from mqrouter.cli.common import Exit, config_option, confirm, gateway_for_orders
from mqrouter.cli.daemon import ORDER_TIMEOUT_S, DaemonDownError, call_daemon, open_database, reason_of, saying_why_not
from mqrouter.cli.selection import age


@click.command("purge")
@config_option
@click.option(
    "--older-than", "older_than_s", type=age, default="0s", metavar="AGE", help="7d: only those that ended before that."
)
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
def purge(config: Path | None, older_than_s: float, is_sure: bool) -> None:
    """Delete finished requests, never waiting or dropped ones nor answers on their way. Works on a full disk, too.

    Without --older-than all that are finished go. With the daemon down the database is locked meanwhile. Exit 3 where
    there is nothing to delete.

    \b
    Example:
      mqrouter queue purge --older-than 12h
    """
    gateway, _ = gateway_for_orders(config)
    if not is_sure:
        if not (number := _count(gateway.database, older_than_s)):
            _say_nothing_found()
        confirm(f"delete {number} finished requests with their answers and histories?")
    try:
        purged = _by_daemon(gateway.control_socket, older_than_s)
    except DaemonDownError:
        purged = _alone(gateway.database, older_than_s)
    if not purged:
        _say_nothing_found()
    click.echo(f"deleted {purged} finished requests")


def _say_nothing_found() -> NoReturn:
    click.echo("no finished request to delete", err=True)
    raise SystemExit(Exit.NOTHING_FOUND)


def _count(database: Path, older_than_s: float) -> int:
    with open_database(database) as db:
        before_ms = _before_ms(db, older_than_s)
        row = db.execute(
            "SELECT count(*) FROM requests WHERE finished_at_ms < ?"
            " AND NOT EXISTS (SELECT 1 FROM outbox WHERE request = requests.seq AND outbox.state = 'ready')",
            (before_ms,),
        ).fetchone()
        return int(row[0])


def _before_ms(db: sqlite3.Connection, older_than_s: float) -> int:
    from mqrouter.edge.store.reading import gateway_now
    from mqrouter.edge.system import machine_clocks

    return gateway_now(db, machine_clocks()).ms - int(1000 * older_than_s)


def _by_daemon(control_socket: Path, older_than_s: float) -> int:
    return sum(report["purged"] for report in order(control_socket, "purge", f"older_than_s={older_than_s}"))


def order(control_socket: Path, name: str, query: str = "") -> Iterator[dict[str, Any]]:
    """Gives the daemon an order until it is done, and yields each of its reports. Raises DaemonDownError."""
    while True:
        status, report = call_daemon(control_socket, "POST", f"/v1/orders/{name}?{query}", timeout_s=ORDER_TIMEOUT_S)
        if status != 200:
            click.echo(f"mqrouter: the daemon could not do that: {reason_of(report)}", err=True)
            raise SystemExit(Exit.FAILED)
        yield report
        if report["is_done"]:
            return


def _alone(database: Path, older_than_s: float) -> int:
    from mqrouter.edge.disk import ballast_path
    from mqrouter.edge.store.offline import purge_all

    with database_alone(database) as db:
        before_ms = _before_ms(db, older_than_s)
        try:
            return purge_all(db, before_ms)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not ballast_path(database.parent).exists():
                raise
            ballast_path(database.parent).unlink()
            if db.in_transaction:
                db.execute("ROLLBACK")
            return purge_all(db, before_ms)


@contextmanager
def database_alone(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, locked against the daemon; ends the process with a message where that cannot be."""
    from mqrouter.edge.store.offline import open_alone
    from mqrouter.errors import StoreLockedError

    try:
        with saying_why_not(path), open_alone(path) as db:
            yield db
    except StoreLockedError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.TEMPFAIL) from error
    except sqlite3.Error as error:
        hint = "; see `mqrouter db check`, and start the daemon: it sets a damaged database aside"
        is_damage = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        click.echo(f"mqrouter: {path}: {error}{hint if is_damage else ''}", err=True)
        raise SystemExit(Exit.FAILED) from error
