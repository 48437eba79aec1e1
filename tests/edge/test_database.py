"""One writer, group commits, and errors that reach exactly those they concern."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mqrouter.edge.store.database import Database
from mqrouter.errors import StoreError, StoreFatalError, StoreLockedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mqrouter.db"


def insert(mid: int) -> Callable[[sqlite3.Connection], int]:
    def write(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO packets (mid, request, payload_hash) VALUES (?, 1, x'00')", (mid,))
        return mid

    return write


def mids(db: sqlite3.Connection) -> list[int]:
    return [row[0] for row in db.execute("SELECT mid FROM packets ORDER BY mid")]


def fail(db: sqlite3.Connection) -> None:
    raise ValueError("a bug in one operation")


def io_error(db: sqlite3.Connection) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (4 << 8)  # SQLITE_IOERR_FSYNC
    raise error


async def test_write_returns_its_result_and_is_read_back(path: Path) -> None:
    async with Database(path) as database:
        assert await database.write(insert(1)) == 1
        assert await database.read(mids) == [1]
    async with Database(path) as database:
        assert await database.read(mids) == [1]


async def test_database_is_durable_by_its_settings(path: Path) -> None:
    def pragmas(db: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    async with Database(path) as database:
        assert await database.read(pragmas) == ["wal", 2, 1]


async def test_waiting_writes_share_one_commit(path: Path) -> None:
    commits: list[str] = []
    async with Database(path) as database:
        await database.read(lambda db: db.set_trace_callback(commits.append))
        await asyncio.gather(*(database.write(insert(mid)) for mid in range(50)))
        await database.read(lambda db: db.set_trace_callback(None))
        assert len(await database.read(mids)) == 50
    assert commits.count("COMMIT") <= 2


async def test_failing_operation_harms_only_itself(path: Path) -> None:
    async with Database(path) as database:
        operations = [insert(1), fail, insert(2), insert(1), insert(3)]
        found = await asyncio.gather(*(database.write(op) for op in operations), return_exceptions=True)
        assert [found[0], found[2], found[4]] == [1, 2, 3]
        assert isinstance(found[1], StoreError) and "a bug in one operation" in str(found[1])
        assert isinstance(found[3], StoreError) and isinstance(found[3].__cause__, sqlite3.IntegrityError)
        assert await database.read(mids) == [1, 2, 3]


async def test_failed_operation_leaves_nothing_half_done(path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        insert(1)(db)
        fail(db)

    async with Database(path) as database:
        with pytest.raises(StoreError):
            await database.write(half)
        assert await database.read(mids) == []


async def test_cancelled_callers_write_still_happens(path: Path) -> None:
    async with Database(path) as database:
        caller = asyncio.create_task(database.write(insert(1)))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await database.write(insert(2))
        assert await database.read(mids) == [1, 2]


async def test_caller_hears_of_the_commit_even_when_cancelled(path: Path) -> None:
    told: list[bool] = []
    async with Database(path) as database:
        caller = asyncio.create_task(database.write(insert(1), committed=lambda: told.append(True)))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        with pytest.raises(StoreError):
            await database.write(fail, committed=lambda: told.append(False))
        assert told == [True]


async def test_io_error_is_fatal_for_everyone_who_waits(path: Path) -> None:
    async with Database(path) as database:
        operations = [insert(1), fail, io_error, insert(2), insert(3)]
        async with asyncio.timeout(60):
            found = await asyncio.gather(*(database.write(op) for op in operations), return_exceptions=True)
        assert found[0] == 1  # on disk before the disk failed
        assert isinstance(found[1], StoreError) and not isinstance(found[1], StoreFatalError)
        assert all(isinstance(error, StoreFatalError) for error in found[2:])
        with pytest.raises(StoreFatalError):
            await database.write(insert(4))


async def test_writes_that_wait_are_done_before_closing(path: Path) -> None:
    async with Database(path) as database:
        writes = [asyncio.create_task(database.write(insert(mid))) for mid in range(20)]
        await asyncio.sleep(0)
    assert [await write for write in writes] == list(range(20))
    with pytest.raises(StoreError, match="closed"):
        await database.write(insert(99))


async def test_read_errors_are_translated(path: Path) -> None:
    async with Database(path) as database:
        with pytest.raises(StoreError, match="no such table"):
            await database.read(lambda db: db.execute("SELECT * FROM nowhere").fetchall())


async def test_second_database_on_the_same_file_is_refused(path: Path) -> None:
    async with Database(path) as first:
        with pytest.raises(StoreLockedError, match=rf"process {os.getpid()}"):
            async with Database(path):
                pass
        await first.write(insert(1))  # the refused one disturbed nothing
    async with Database(path) as second:
        assert await second.read(mids) == [1]


async def test_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    async with Database(path) as database:
        await database.write(insert(1))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="schema 99"):
        async with Database(path):
            pass
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (99,)
    assert db.execute("SELECT count(*) FROM packets").fetchone() == (1,)
    db.close()
    with pytest.raises(StoreError, match="schema 99"):  # and the lock was given back
        async with Database(path):
            pass


async def test_full_disk_fails_writes_and_heals(path: Path) -> None:
    def big(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO packets (mid, request, payload_hash) VALUES (7, 1, zeroblob(2000000))")

    async with Database(path) as database:
        await database.write(insert(1))
        pages = await database.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await database.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
        with pytest.raises(StoreError, match="full") as caught:
            await database.write(big)
        assert not isinstance(caught.value, StoreFatalError)
        assert await database.read(mids) == [1]
        await database.read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        await database.write(big)
        assert await database.read(mids) == [1, 7]
