"""What `top` looks at: the daemon over its control socket, or its database while it is down."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from mqrouter.cli.common import Exit
from mqrouter.cli.daemon import ORDER_TIMEOUT_S, TIMEOUT_S, DaemonDownError, DaemonSilentError, exchange
from mqrouter.cli.selection import selection_of
from mqrouter.cli.top.log_tail import tail
from mqrouter.core.states import ACTIVE, TERMINAL, State
from mqrouter.core.steering import Sort
from mqrouter.core.waiting import Standing, explained, standing_of_status

if TYPE_CHECKING:
    from mqrouter.settings import Gateway

Row = dict[str, Any]
WAITING = [str(state) for state in State if state in ACTIVE]
ENDED = [str(state) for state in State if state in TERMINAL]
NOTHING_KNOWN = Standing({}, is_live=False)
STATS_EVERY_S = 10.0
STATS_SHARE = 0.05
"""Counting a queue by route reads all of it: no more of the time than this goes into that."""
PAGE = 50
EVENTS = 100


class RefusedError(Exception):
    """Says why an order is not carried out, or why there is nothing to see; `code` is what a command ends with."""

    def __init__(self, why: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Overview:
    """How the gateway is. `status` is the daemon's own account: None while it is down."""

    status: Mapping[str, Any] | None
    stats: Mapping[str, Any]
    samples: Mapping[str, float] = field(default_factory=dict)
    """Metrics without labels by their name, and with labels as `name{label="value"}`."""
    standing: Standing = NOTHING_KNOWN
    """What requests wait for; of a daemon that is down, what is known of that."""
    at_s: float = 0.0
    """By a clock that only goes forward."""
    trouble: str | None = None
    """Why not all of this could be read."""

    @property
    def is_running(self) -> bool:
        return self.status is not None


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Row]
    next: int | None
    """Where to go on; None at the end."""


class Source:
    """Every method blocks for as long as a look takes. `log_file` is the configured one."""

    def __init__(self, gateway: Gateway, *, log_file: Path | None, is_read_only: bool) -> None:
        self._socket = gateway.control_socket
        self._database = gateway.database
        self._log_file = log_file
        self.is_read_only = is_read_only
        self._stats: Mapping[str, Any] = {}
        self._stats_due_s = 0.0

    # --- looking ------------------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Raises RefusedError where nothing can be read: permissions, or a daemon that does not answer."""
        try:
            status = self._get("/v1/status")
            samples = _samples(self._get_text("/metrics"))
            return Overview(status, self._counted(), samples, standing_of_status(status), time.monotonic())
        except DaemonDownError:
            self._stats_due_s = 0.0
            return self._overview_of_database()

    def _counted(self) -> Mapping[str, Any]:
        """Returns the numbers by route; those of a little earlier where counting takes long."""
        began_s = time.monotonic()
        if began_s >= self._stats_due_s:
            self._stats = self._get("/v1/stats")
            ended_s = time.monotonic()
            self._stats_due_s = ended_s + max(STATS_EVERY_S, (ended_s - began_s) / STATS_SHARE)
        return self._stats

    def recount(self) -> None:
        """The next look counts anew: something was changed."""
        self._stats_due_s = 0.0

    def _overview_of_database(self) -> Overview:
        from mqrouter.edge.store.reading import gateway_now, last_known, stats
        from mqrouter.edge.system import machine_clocks

        try:
            with self._open() as db:
                now = gateway_now(db, machine_clocks())
                found, standing = stats(db, now), last_known(db, now)
        except RefusedError as error:
            return Overview(None, {}, at_s=time.monotonic(), trouble=str(error))
        return Overview(None, found, standing=standing, at_s=time.monotonic())

    def page(
        self, wanted: Mapping[str, Any], *, sort: Sort = Sort.NEWEST, after: int | None = None, limit: int = PAGE
    ) -> Page:
        """Returns requests; those that wait where `wanted` names no states. Raises RefusedError."""
        wanted = {"state": WAITING} | dict(wanted)
        query = [(name, value) for name, value in wanted.items() if name != "state"]
        query += [("state", state) for state in wanted["state"]]
        query += [("sort", str(sort)), ("limit", limit), *([] if after is None else [("after", after)])]
        try:
            found = self._get(f"/v1/requests?{urlencode(query)}")
            return Page(found["requests"], found["next"])
        except DaemonDownError:
            return self._page_of_database(wanted, sort, after, limit)

    def _page_of_database(self, wanted: Mapping[str, Any], sort: Sort, after: int | None, limit: int) -> Page:
        from mqrouter.edge.store.reading import gateway_now, page_of
        from mqrouter.edge.system import machine_clocks

        with self._open() as db:
            now = gateway_now(db, machine_clocks())
            found = page_of(db, selection_of(wanted), limit=limit, now=now, sort=sort, after=after)
        return Page(found.rows, found.next)

    def show(self, request_id: str) -> Row:
        """Returns all about a request but its texts. Raises RefusedError where it is gone."""
        try:
            return self._get(f"/v1/requests/{quote(request_id, safe='')}")
        except DaemonDownError:
            return self._show_from_database(request_id)

    def _show_from_database(self, request_id: str) -> Row:
        from mqrouter.edge.store.reading import gateway_now, last_known, masked, show_request
        from mqrouter.edge.system import machine_clocks

        with self._open() as db:
            now = gateway_now(db, machine_clocks())
            found, standing = show_request(db, request_id, now), last_known(db, now)
        if found is None:
            raise RefusedError("there is no such request")
        return explained(masked(found), standing)

    def log_lines(self) -> list[str] | None:
        """Returns the latest lines of the log file, the newest last; None where the log goes elsewhere."""
        return None if self._log_file is None else tail(self._log_file, EVENTS)

    def actions(self) -> list[Row]:
        """Returns what operators did, newest first. Raises RefusedError."""
        try:
            found: list[Row] = self._get(f"/v1/actions?limit={PAGE}")["actions"]
        except DaemonDownError:
            from mqrouter.edge.store.reading import gateway_now, list_actions
            from mqrouter.edge.system import machine_clocks

            with self._open() as db:
                return list_actions(db, PAGE, gateway_now(db, machine_clocks()))
        return found

    def endings(self) -> Sequence[Row]:
        """Returns requests that ended, the newest request first. Raises RefusedError."""
        return self.page({"state": ENDED}).rows

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database of a daemon that is down. Raises RefusedError."""
        from mqrouter.edge.store.reading import open_read_only

        try:
            with open_read_only(self._database) as db:
                yield db
        except FileNotFoundError:
            raise RefusedError(f"there is no database {self._database} yet") from None
        except PermissionError as error:
            raise RefusedError(f"{self._database}: {error.strerror}: run this as the daemon's user") from error
        except sqlite3.Error as error:
            raise RefusedError(f"{self._database} cannot be read: {error}") from error

    # --- steering -----------------------------------------------------------------------------------

    def order(self, verb: str, ids: Sequence[str], arguments: Mapping[str, Any]) -> list[Row]:
        """Returns what became of each. Raises RefusedError."""
        report: Row = self._post(f"/v1/bulk/{verb}", {"ids": list(ids), **arguments})
        outcomes: list[Row] = report["outcomes"]
        return outcomes

    def steer(self, kind: str, name: str, verb: str) -> None:
        """`kind` is tiers or routes, `verb` is pause or resume. Raises RefusedError."""
        self._post(f"/v1/{kind}/{quote(name, safe='')}/{verb}", None)

    def _post(self, target: str, body: object) -> Row:
        if self.is_read_only:
            raise RefusedError("this view is read-only")
        try:
            found = self._answered(lambda: exchange(self._socket, "POST", target, body=body, timeout_s=ORDER_TIMEOUT_S))
        except DaemonDownError:
            raise RefusedError("the daemon is not running: nothing can be changed") from None
        self.recount()
        return _decoded(found)

    def _get(self, target: str) -> Row:
        return _decoded(self._get_text(target))

    def _get_text(self, target: str) -> bytes:
        return self._answered(lambda: exchange(self._socket, "GET", target, timeout_s=TIMEOUT_S))

    def _answered(self, ask: Callable[[], tuple[int, bytes]]) -> bytes:
        """Raises DaemonDownError, or RefusedError for everything else that is no answer."""
        try:
            status, content = ask()
        except PermissionError as error:
            raise RefusedError(
                f"{self._socket}: {error.strerror}: run this as the daemon's user", Exit.NOPERM
            ) from error
        except DaemonSilentError as error:
            raise RefusedError(str(error), Exit.TEMPFAIL) from None
        if status != 200:
            raise RefusedError(_reason(content) or f"the daemon answered {status}: its log says why")
        return content


def _decoded(content: bytes) -> Row:
    try:
        found: Row = json.loads(content)
    except ValueError as error:
        raise RefusedError(f"the daemon said something that is not JSON: {error}") from error
    return found


def _reason(content: bytes) -> str | None:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _samples(text: bytes) -> dict[str, float]:
    """Returns the samples of Prometheus' text format; buckets, of which there are many, are left out."""
    found: dict[str, float] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#") and "_bucket{" not in name:
            try:
                found[name] = float(value)
            except ValueError:
                continue
    return found
