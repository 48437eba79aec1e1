"""Looking beside the writer: what is found, in which order, and what stays behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from fakes import QUEUE, START_MS, request

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.timeline import Clocks
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.search import FIRST_BATCH
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import StoreError

CLOCKS = Clocks(START_MS, START_MS, "boot")
MANY = 6 * FIRST_BATCH + 7  # several batches, the last not full


async def fill(store: Store, number: int) -> None:
    """Every third is of a priority of its own."""
    payloads = [f'{{"question": "what says sensor {n}?", "priority": {2 if n % 3 == 0 else 0}}}' for n in range(number)]
    items = [request(text, topic=f"mqrouter/farm/ask/d/{n}") for n, text in enumerate(payloads)]
    await store.accept(items, START_MS)


async def all_pages(reader: Reader, wanted: Selection, sort: Sort, limit: int) -> list[str]:
    found: list[str] = []
    after: Seq | None = None
    while True:
        rows, after = await reader.page(wanted, limit=limit, sort=sort, after=after)
        found += [row["id"] for row in rows]
        if after is None:
            return found


@pytest.mark.parametrize("limit", [1, 50, 500])
@pytest.mark.parametrize(
    "wanted", [Selection(), Selection(priority=2), Selection(states=("received", "pending"), priority=2)]
)
async def test_pages_hold_each_that_fits_once_in_order(
    store: Store, database: Database, tmp_path: Path, wanted: Selection, limit: int
) -> None:
    await fill(store, MANY)
    query = "SELECT id FROM requests WHERE priority = ? OR ? ORDER BY seq"
    rows = await database.read(lambda db: db.execute(query, (2, wanted.priority is None)).fetchall())
    ids = [row[0] for row in rows]
    assert len(ids) == (MANY if wanted.priority is None else (MANY + 2) // 3)
    async with Reader(tmp_path / "mqrouter.db", lambda: CLOCKS) as reader:
        assert await all_pages(reader, wanted, Sort.OLDEST, limit) == ids
        assert await all_pages(reader, wanted, Sort.NEWEST, limit) == ids[::-1]


async def test_each_look_sees_what_was_written_before_it(store: Store, tmp_path: Path) -> None:
    async with Reader(tmp_path / "mqrouter.db", lambda: CLOCKS) as reader:
        assert await all_pages(reader, Selection(), Sort.NEWEST, 50) == []
        await fill(store, 3)
        assert len(await all_pages(reader, Selection(), Sort.NEWEST, 50)) == 3


async def test_look_that_fails_spares_the_next(store: Store, tmp_path: Path) -> None:
    await fill(store, 1)
    broken = [True]

    def clocks() -> Clocks:
        if broken:
            broken.clear()
            raise sqlite3.OperationalError("disk I/O error")
        return CLOCKS

    async with Reader(tmp_path / "mqrouter.db", clocks) as reader:
        with pytest.raises(StoreError, match="disk I/O error"):
            await reader.stats()
        assert (await reader.stats())["requests"] == {"received": 1}


async def test_nothing_is_left_beside_the_file_when_both_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with Database(path) as database, Reader(path, lambda: CLOCKS) as reader:
        await fill(Store(database, Policy(QUEUE, 0, 0)), 3)
        await reader.stats()
        assert path.with_name("other.db-wal").exists()
    assert not path.with_name("other.db-wal").exists()


async def test_what_several_wait_for_is_looked_up_once_and_anew_for_who_comes_later(
    store: Store, tmp_path: Path
) -> None:
    looks: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()

    def clocks() -> Clocks:
        looks.append("look")
        begun.set()
        assert goes_on.wait(60)
        return CLOCKS

    async with Reader(tmp_path / "mqrouter.db", clocks) as reader, asyncio.TaskGroup() as group:

        def ask(device: str | None = None) -> asyncio.Task[list[str]]:
            return group.create_task(all_pages(reader, Selection(device=device), Sort.NEWEST, 50))

        early = ask()
        await asyncio.to_thread(begun.wait, 60)
        await fill(store, 3)  # after the first look began
        late = [ask(), ask(), ask("d"), ask()]
        await asyncio.sleep(0)
        goes_on.set()
        assert [len(await task) for task in late] == [3, 3, 3, 3]
        assert len(await early) <= 3
        assert len(looks) == 3
        assert len(await ask()) == 3
        assert len(looks) == 4
