"""The daemon's own way of looking: a second connection, read-only, in a thread that holds nobody up."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mqrouter.core.records import Seq
from mqrouter.core.steering import Order, Outcome, Selection, Sort
from mqrouter.core.timeline import Clocks
from mqrouter.edge.store import reading, search
from mqrouter.edge.store.decisions import page_of_decisions
from mqrouter.edge.store.export import export_page
from mqrouter.edge.store.orders import preview
from mqrouter.errors import StoreError

T = TypeVar("T")


class _Asked:
    """A look somebody waits for. Who joins it before it has begun sees what was written before they came."""

    __slots__ = ("found", "has_begun")

    found: asyncio.Future[Any]

    def __init__(self) -> None:
        self.has_begun = False


class Reader:
    """Every method reads what is true at one moment. Raises StoreError where the file cannot be read.

    Use as an async context manager; `clocks` are the machine's. The connection stays open, for opening one and reading
    the schema takes longer than most looks. Who asks for what another is waiting for shares its answer, so that many
    who watch the same page cost little more than one: it is not to be changed.
    """

    def __init__(self, path: Path, clocks: Callable[[], Clocks]) -> None:
        self._path = path
        self._clocks = clocks
        self._db: sqlite3.Connection | None = None
        self._asked: dict[Hashable, _Asked] = {}

    async def __aenter__(self) -> Reader:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store.reader")
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is being read is cut short. Closed before the writer is: the last one to close removes the log file."""
        if self._db is not None:
            self._db.interrupt()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def page(
        self, wanted: Selection, *, limit: int, sort: Sort, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]:
        """Returns requests, and the number to go on after: None where nothing is left to look at."""

        def look(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], Seq | None]:
            now = reading.gateway_now(db, self._clocks())
            page = reading.page_of(db, wanted, limit=limit, now=now, sort=sort, after=after)
            return page.rows, page.next

        return await self._read(look, ("page", wanted, limit, sort, after))

    async def decisions(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]:
        """Returns requests, newest first, with what was decided of each, and the number to go on after."""

        def look(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], Seq | None]:
            now = reading.gateway_now(db, self._clocks())
            page = page_of_decisions(db, wanted, limit=limit, now=now, after=after)
            return page.rows, page.next

        return await self._read(look, ("decisions", wanted, limit, after))

    async def export(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]:
        """Returns requests, oldest first, whole with their texts, and the number to go on after."""

        def look(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], Seq | None]:
            page = export_page(db, wanted, reading.gateway_now(db, self._clocks()), limit=limit, after=after)
            return page.rows, page.next

        return await self._read(look)

    async def find(self, wanted: Selection, *, limit: int, after: Seq | None) -> tuple[list[Seq], Seq | None]:
        """Returns numbers, oldest first, and the one to go on after."""

        def look(db: sqlite3.Connection) -> tuple[list[Seq], Seq | None]:
            now_ms = reading.gateway_now(db, self._clocks()).ms
            found = search.find(db, wanted, limit=limit, now_ms=now_ms, sort=Sort.OLDEST, after=after)
            return found.seqs, found.next

        return await self._read(look)

    async def preview(self, order: Order, requests: Sequence[Seq | str]) -> list[Outcome]:
        """Returns what the order would find of each."""
        return await self._read(lambda db: preview(db, order, requests))

    async def show(self, request_id: str, *, with_text: bool) -> dict[str, Any] | None:
        """Returns everything about one request, what it asks and got only `with_text`; None where there is none."""

        def look(db: sqlite3.Connection) -> dict[str, Any] | None:
            found = reading.show_request(db, request_id, reading.gateway_now(db, self._clocks()))
            return found if found is None or with_text else reading.masked(found)

        return await self._read(look, ("show", request_id, with_text))

    async def actions(self, limit: int) -> list[dict[str, Any]]:
        """Returns what operators did, newest first."""
        return await self._read(lambda db: reading.list_actions(db, limit, reading.gateway_now(db, self._clocks())))

    async def stats(self) -> dict[str, Any]:
        """Returns how many requests there are by state and by route; a look at every one."""
        return await self._read(lambda db: reading.stats(db, reading.gateway_now(db, self._clocks())), "stats")

    async def _read(self, look: Callable[[sqlite3.Connection], T], same: Hashable = None) -> T:
        """Looks that are the `same` find the same; without it this one is like no other."""
        asked = self._asked.get(same)
        if same is None or asked is None or asked.has_begun:
            asked = self._asked[same] = _Asked()
            asked.found = asyncio.get_running_loop().run_in_executor(self._thread, self._look, look, asked)
            asked.found.add_done_callback(lambda _: self._forget(same))
        try:
            found: T = await asyncio.shield(asked.found)
            return found
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error

    def _look(self, look: Callable[[sqlite3.Connection], T], asked: _Asked) -> T:
        """In the thread. After an error the next look opens the file anew: it may be another one by then."""
        asked.has_begun = True
        if self._db is None:
            self._db = reading.connect_read_only(self._path)
        try:
            self._db.execute("BEGIN")
            found = look(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            self._close()
            raise
        return found

    def _forget(self, same: Hashable) -> None:
        if same in self._asked and self._asked[same].has_begun:
            del self._asked[same]

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
