"""The disk is watched, and the database kept to its size."""

from __future__ import annotations

import sqlite3

import pytest
from fakes import START_MS, FakeClock, FlakyDatabase, refused, request, running, settled

from mqrouter.core.disk_space import DiskLevel, DiskSpace, Thresholds
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.edge.store.space import Space
from mqrouter.edge.store.store import Store
from mqrouter.errors import ErrorCode, StoreFullError
from mqrouter.flow.room import LOOK_EVERY_S, RELIEVE_EVERY_S, Room
from mqrouter.flow.wakeup import Wakeup

KEEP_S = 100.0
MB = 1 << 20


class FakeDisk:
    """As much room as the test says."""

    def __init__(self) -> None:
        self.thresholds = Thresholds(soft=100 * MB, hard=20 * MB, ballast=8 * MB)
        self.free = 1000 * MB
        self.ballast_bytes = 0

    def space(self) -> DiskSpace:
        return DiskSpace(4000 * MB, self.free)

    def release_ballast(self) -> bool:
        was, self.ballast_bytes = self.ballast_bytes, 0
        self.free += was
        return was > 0

    def keep_ballast(self) -> bool:
        self.ballast_bytes = self.thresholds.ballast
        self.free -= self.ballast_bytes
        return True


class Stage:
    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.disk, self.full = FakeDisk(), Wakeup()
        self.room = self.make(retain_bytes=1 << 40)

    def make(self, *, retain_bytes: int) -> Room:
        return Room(
            self.store,
            Space(self.database),
            self.disk,
            self.clock,
            retain_bytes=retain_bytes,
            keep_ms=int(1000 * KEEP_S),
            full=self.full,
        )

    async def pass_time(self, seconds: float = LOOK_EVERY_S) -> None:
        await settled(self.database)
        self.clock.advance(seconds)
        await settled(self.database)

    async def finished(self, number: int, *, is_delivered: bool = True) -> None:
        """So many requests that ended now; their answers are out, or still on their way."""
        await self.store.accept([request("how are the cows? " * 40) for _ in range(number)], self.clock.now_ms())
        for item in await self.store.next_received(number, ()):
            answer = Answer(error=ErrorCode.NO_ROUTE, error_message="no")
            await self.store.finish(item, answer, State.CANCELLED, self.clock.now_ms())
        for row in await self.store.outbox_after(0, 10_000) if is_delivered else ():
            await self.store.delivered(row, self.clock.now_ms())

    async def left(self) -> int:
        return await self.database.read(lambda db: int(db.execute("SELECT count(*) FROM requests").fetchone()[0]))


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_level_follows_the_disk_both_ways(stage: Stage) -> None:
    async with running(stage.room.run):
        levels = []
        for free in (1000, 99, 19, 99, 1000):
            stage.disk.free = free * MB
            await stage.pass_time()
            levels.append(stage.room.level)
    enough, low, full = DiskLevel.ENOUGH, DiskLevel.LOW, DiskLevel.FULL
    assert levels == [enough, low, full, low, enough]


async def test_ballast_is_kept_where_there_is_room(stage: Stage) -> None:
    stage.disk.free = 105 * MB
    async with running(stage.room.run):
        await stage.pass_time()
        assert stage.disk.ballast_bytes == 0
        stage.disk.free = 108 * MB
        await stage.pass_time()
        assert stage.disk.ballast_bytes == 8 * MB
    assert stage.disk.free == 100 * MB


async def test_full_disk_gives_the_ballast_back_and_old_rows(stage: Stage) -> None:
    await stage.finished(20)
    stage.clock.advance(KEEP_S + 1)
    await stage.finished(5)
    await stage.finished(3, is_delivered=False)
    await stage.store.accept([request("still open?")], stage.clock.now_ms())
    stage.disk.free, stage.disk.ballast_bytes = 0, 8 * MB
    async with running(stage.room.run):
        await settled(stage.database)
        stage.full.give()
        await stage.pass_time()
    assert stage.disk.ballast_bytes == 0
    assert await stage.left() == 5 + 3 + 1  # duplicates of the young may come


async def test_full_disk_costs_refused_requests_of_any_age(stage: Stage) -> None:
    await stage.store.accept([refused(b"\xff", correlation=b"1")], START_MS)
    for row in await stage.store.outbox_after(0, 10):
        await stage.store.delivered(row, START_MS)
    stage.clock.advance(1)
    stage.disk.free = 0
    async with running(stage.room.run):
        await settled(stage.database)
        stage.full.give()
        await stage.pass_time()
    assert await stage.left() == 0


async def test_disk_that_stays_full_is_not_relieved_without_a_pause(stage: Stage) -> None:
    released: list[float] = []
    stage.disk.release_ballast = lambda: bool(released.append(stage.clock.monotonic_s()))  # type: ignore[method-assign,func-returns-value]
    stage.disk.free = 0
    async with running(stage.room.run):
        for _ in range(int(2 * RELIEVE_EVERY_S)):
            stage.full.give()
            await stage.pass_time()
    assert 1 <= len(released) <= 3


async def test_size_is_kept_by_the_oldest(stage: Stage) -> None:
    for _ in range(6):
        await stage.finished(200)
        stage.clock.advance(1)
    await stage.finished(10, is_delivered=False)
    used = (await Space(stage.database).size()).used
    room = stage.make(retain_bytes=used // 2)
    async with running(room.run):
        for _ in range(8):
            await stage.pass_time()
    oldest = await stage.database.read(lambda db: db.execute("SELECT min(seq), count(*) FROM requests").fetchone())
    assert (await Space(stage.database).size()).used <= used // 2
    assert oldest[0] > 400 and oldest[1] > 400
    assert len(await stage.store.outbox_after(0, 100)) == 10  # answers on their way are not touched


async def test_file_shrinks_after_a_purge(stage: Stage) -> None:
    await stage.finished(600)
    space = Space(stage.database)
    stage.clock.advance(10)
    await stage.room.purge(0)
    before = await space.size()
    async with running(stage.room.run):
        for _ in range(20):
            await stage.pass_time()
    after = await space.size()
    assert await stage.left() == 0
    assert before.can_shrink and after.unused < before.used + before.unused


async def test_operator_purges_by_age_and_hears_how_many(stage: Stage) -> None:
    await stage.finished(30)
    stage.clock.advance(60)
    await stage.finished(10)
    await stage.finished(5, is_delivered=False)
    stage.clock.advance(1)
    assert await stage.room.purge(30_000) == {"purged": 30, "is_done": True}
    assert await stage.room.purge(0) == {"purged": 10, "is_done": True}
    assert await stage.left() == 5


async def test_purge_takes_smaller_steps_where_the_disk_has_no_room_for_large_ones(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.finished(50)
    stage.clock.advance(1)

    async def purge(finished_before_ms: int, refused_before_ms: int, limit: int = 500) -> int:
        if limit > 10:
            raise StoreFullError("database or disk is full")
        return await Store.purge(stage.store, finished_before_ms, refused_before_ms, limit)

    monkeypatch.setattr(stage.store, "purge", purge)
    assert (await stage.room.purge(0))["purged"] == 50


async def test_vacuum_gives_all_unused_pages_back(stage: Stage) -> None:
    await stage.finished(600)
    stage.clock.advance(1)
    await stage.store.purge(stage.clock.now_ms(), stage.clock.now_ms(), 10_000)
    before = await Space(stage.database).size()
    report = await stage.room.vacuum()
    assert before.unused > 0 and report["freed_bytes"] == before.unused
    assert report["is_done"] and (await Space(stage.database).size()).unused == 0


async def test_checkpoint_that_finds_no_room_is_no_fault(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def checkpoint(_: Space) -> None:
        raise StoreFullError("database or disk is full")

    monkeypatch.setattr(Space, "checkpoint", checkpoint)
    await stage.finished(5)
    stage.clock.advance(1)
    assert (await stage.room.purge(0))["purged"] == 5


async def test_full_disk_is_announced(database: FlakyDatabase) -> None:
    told: list[bool] = []
    database._on_full = lambda: told.append(True)

    def fail(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with pytest.raises(StoreFullError):
        await database.write(fail)
    assert told
