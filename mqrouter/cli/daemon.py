"""Talking to the daemon on this machine, and reading its database where it is down."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit

if TYPE_CHECKING:
    from mqrouter.core.waiting import Standing

TIMEOUT_S = 5.0
ORDER_TIMEOUT_S = 60.0  # a slow card syncs many times in one step


class DaemonDownError(Exception):
    """Nobody listens on the control socket."""


class DaemonSilentError(Exception):
    """It runs, and does not answer in time; as text, what to do about that."""

    def __init__(self, timeout_s: float, *, is_order: bool) -> None:
        later = "; the order may still be carried out: see `mqrouter queue actions`" if is_order else ""
        super().__init__(
            f"the daemon runs but has not answered for {timeout_s:g} s: it hangs, was stopped (SIGSTOP) or has too much"
            f" to do{later}; its log may say why (`journalctl -u mqrouter`), and to restart it"
            " (`systemctl restart mqrouter`) loses no question"
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


def call_daemon(
    socket_path: Path, method: str, target: str, *, body: object = None, timeout_s: float = TIMEOUT_S
) -> tuple[int, dict[str, Any]]:
    """Returns the status and the JSON answer; `body` goes as JSON. Raises DaemonDownError."""
    status, content = ask_daemon(socket_path, method, target, body=body, timeout_s=timeout_s)
    return status, _decoded(content)


def ask_daemon(
    socket_path: Path, method: str, target: str, *, body: object = None, timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """The same as `exchange`, for a command: ends the process with a message where the daemon cannot be asked."""
    try:
        with _saying_whose_it_is(socket_path):
            return exchange(socket_path, method, target, body=body, timeout_s=timeout_s)
    except DaemonSilentError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.TEMPFAIL) from error


def status_of_daemon(socket_path: Path) -> dict[str, Any]:
    """Returns what the daemon says of itself. Raises DaemonDownError, or DaemonSilentError."""
    with _saying_whose_it_is(socket_path):
        _, content = exchange(socket_path, "GET", "/v1/status", timeout_s=TIMEOUT_S)
    return _decoded(content)


@contextmanager
def _saying_whose_it_is(socket_path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        click.echo(f"mqrouter: {socket_path}: {error.strerror}: run this as the daemon's user", err=True)
        raise SystemExit(Exit.NOPERM) from error


def exchange(
    socket_path: Path, method: str, target: str, *, body: object = None, timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """Returns the status and what was answered; `body` goes as JSON.

    A daemon that does not answer is given no order: it would be carried out whenever it goes on.
    Raises DaemonDownError, DaemonSilentError, or PermissionError.
    """
    if method != "GET":
        _exchange(socket_path, "GET", "/livez", None, TIMEOUT_S)
    return _exchange(socket_path, method, target, body, timeout_s)


def _exchange(socket_path: Path, method: str, target: str, body: object, timeout_s: float) -> tuple[int, bytes]:
    connection = _UnixConnection(socket_path, timeout_s)
    content = None if body is None else json.dumps(body)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, target, content, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (TimeoutError, BlockingIOError) as error:  # the latter where too many wait already for it to listen
        raise DaemonSilentError(timeout_s, is_order=method != "GET") from error
    except PermissionError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise DaemonDownError(str(error)) from error
    finally:
        connection.close()


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise DaemonDownError(str(error)) from error
    return found


def order_daemon(socket_path: Path, target: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """The same for what only the running daemon does: ends the process with a message where it is down."""
    with _saying_that_it_is_down():
        return call_daemon(socket_path, "POST", target, body=body, timeout_s=ORDER_TIMEOUT_S)


def status_or_exit(socket_path: Path) -> dict[str, Any]:
    """Returns what the daemon says of itself; ends the process with a message where it says nothing."""
    with _saying_that_it_is_down():
        return call_daemon(socket_path, "GET", "/v1/status")[1]


@contextmanager
def _saying_that_it_is_down() -> Iterator[None]:
    try:
        yield
    except DaemonDownError:
        click.echo("mqrouter: the daemon is not running; start it with `mqrouter run`", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from None


def standing_of_daemon(socket_path: Path) -> Standing | None:
    """Returns what the running daemon's requests may wait for; None where it is down, or does not say, which is said.

    The database has what was known last.
    """
    from mqrouter.core.waiting import standing_of_status

    try:
        status = status_of_daemon(socket_path)
    except (DaemonDownError, SystemExit):
        return None
    except DaemonSilentError as error:
        click.echo(f"mqrouter: {error}", err=True)
        return None
    return standing_of_status(status) if "paused_routes" in status else None


def reason_of(body: dict[str, Any]) -> str:
    """Returns what the daemon said of an order that it refused."""
    return str(body["error"]["message"])


@contextmanager
def open_database(path: Path, *, is_any: bool = False) -> Iterator[sqlite3.Connection]:
    """The database, read-only; ends the process with a message where that cannot be.

    With `is_any` also one of an earlier mqrouter, in which not everything can be looked up.
    """
    from mqrouter.edge.store.reading import open_read_only

    try:
        with saying_why_not(path), open_read_only(path) as db:
            if not is_any and _is_earlier(db):
                click.echo(f"mqrouter: {path} is of an earlier mqrouter: start the daemon, which updates it", err=True)
                raise SystemExit(Exit.UNAVAILABLE)
            yield db
    except sqlite3.Error as error:
        click.echo(f"mqrouter: {path} cannot be read: {error}", err=True)
        raise SystemExit(Exit.NOPERM if "unable to open" in str(error) else Exit.UNAVAILABLE) from error


def _is_earlier(db: sqlite3.Connection) -> bool:
    from mqrouter.edge.store.schema import is_earlier

    try:
        return is_earlier(db)
    except sqlite3.DatabaseError:
        return False  # damaged: whoever looks says so


@contextmanager
def saying_why_not(path: Path) -> Iterator[None]:
    """A database that is not there, or belongs to another user, ends the process with a message."""
    try:
        yield
    except FileNotFoundError:
        click.echo(f"mqrouter: there is no database {path} yet: start the daemon with `mqrouter run`", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from None
    except PermissionError as error:
        click.echo(f"mqrouter: {path}: {error.strerror}: run this as the daemon's user, or as root", err=True)
        raise SystemExit(Exit.NOPERM) from error
