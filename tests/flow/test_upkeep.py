"""What the clock alone brings about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import START_MS, FakeClock, FlakyDatabase, judge, order, request, running, settled, until

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Verb
from mqrouter.core.timeline import Clocks
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.upkeep import PURGE_EVERY_S, TICK_S, Upkeep
from mqrouter.flow.wakeup import Wakeup

RETAIN_S = 1_000.0


class Stage:
    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.board = TierBoard({"hub": Breaker(2, Backoff(1.0, 60.0))}, clock, lambda: 0.0)
        self.answered = Wakeup()
        self.judge = judge()
        self.wall_ahead_ms = 0
        self.upkeep = Upkeep(
            store,
            self.board,
            clock,
            backoff=Backoff(1.0, 60.0),
            retain_finished_s=RETAIN_S,
            retain_refused_s=RETAIN_S / 10,
            judge=lambda: self.judge,
            machine=lambda: Clocks(clock.now_ms() + self.wall_ahead_ms, 0, "boot"),
            answered=self.answered,
        )

    async def pass_time(self, seconds: float) -> None:
        await settled(self.database)
        self.clock.advance(seconds + TICK_S)
        await settled(self.database)

    async def states(self) -> list[Any]:
        return await self.database.read(
            lambda db: [row[0] for row in db.execute("SELECT state FROM requests ORDER BY seq")]
        )

    async def todo(self) -> list[Any]:
        return await self.database.read(
            lambda db: [row[0] for row in db.execute("SELECT todo FROM requests ORDER BY seq")]
        )

    @property
    def is_answer_announced(self) -> bool:
        return self.answered._event.is_set()


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_request_past_its_time_is_answered_expired(stage: Stage) -> None:
    await stage.store.accept([request(expiry_s=10), request(expiry_s=20)], START_MS)
    async with running(stage.upkeep.run):
        await stage.pass_time(9.0)
        assert await stage.states() == ["received", "received"]
        await stage.pass_time(1.0)
        assert await stage.states() == ["expired", "received"]
        assert stage.is_answer_announced
    (answer,) = await stage.store.outbox_after(0, 10)
    assert answer.message.payload == b"error expired: no answer within the time to live"


async def test_request_that_waited_is_offered_to_the_lanes_again(stage: Stage) -> None:
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("hub",), route=None, confidence=0, decision={}, now_ms=START_MS)
    (leased,) = await stage.store.claim("hub", ["hub"], 1, START_MS)
    hub = Waiting(("hub",), ("hub",))
    await stage.store.release(leased, hub, note="", now_ms=START_MS, is_counted=True, not_before_ms=START_MS + 5_000)
    async with running(stage.upkeep.run):
        await stage.pass_time(4.0)
        assert not stage.board.wakeups["hub"]._event.is_set()
        await stage.pass_time(1.0)
        assert stage.board.wakeups["hub"]._event.is_set()
    assert len(await stage.store.claim("hub", ["hub"], 1, stage.clock.now_ms())) == 1


async def test_answer_nobody_takes_ends_undelivered(stage: Stage) -> None:
    await stage.store.accept([request(expiry_s=1)], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.finish(row, Answer(text="x"), State.ANSWERED, START_MS)
    async with running(stage.upkeep.run):
        await stage.pass_time(599.0)
        assert await stage.states() == ["answered"]
        await stage.pass_time(1.0)
        assert await stage.states() == ["undelivered"]


async def test_finished_requests_are_purged_after_their_retention(stage: Stage) -> None:
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.finish(row, Answer(text="x"), State.ANSWERED, START_MS)
    (answer,) = await stage.store.outbox_after(0, 1)
    await stage.store.delivered(answer, START_MS)
    async with running(stage.upkeep.run):
        await stage.pass_time(RETAIN_S - PURGE_EVERY_S)
        assert await stage.states() == ["delivered"]
        await stage.pass_time(PURGE_EVERY_S + 1.0)
        assert await stage.states() == []


async def test_idle_gateway_writes_nothing(stage: Stage) -> None:
    async with running(stage.upkeep.run):
        await stage.pass_time(1.0)  # the first purge
        stage.database.error = StoreError("nothing may be written now")
        for _ in range(20):
            await stage.pass_time(1.0)
        assert stage.database.refused == 0


async def test_upkeep_goes_on_once_the_store_works_again(stage: Stage) -> None:
    await stage.store.accept([request(expiry_s=10)], START_MS)
    stage.database.error = StoreError("the disk is full")
    async with running(stage.upkeep.run):
        await stage.pass_time(11.0)
        await until(lambda: stage.database.refused)
        stage.database.error = None
        await stage.pass_time(1.0)
        assert await stage.states() == ["expired"]


async def test_failed_disk_ends_the_stage(stage: Stage) -> None:
    await stage.store.accept([request(expiry_s=10)], START_MS)
    stage.clock.advance(11.0)
    stage.database.error = StoreFatalError("fsync failed")
    task = asyncio.create_task(stage.upkeep.run())
    await until(task.done)
    assert isinstance(task.exception(), StoreFatalError)


async def test_request_is_not_stuck_with_a_tier_that_went_down(stage: Stage) -> None:
    """After `edge` failed the round goes on with `hub`; when that is lost too, `edge` gets another try."""
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("edge", "hub"), route=None, confidence=0.5, decision={}, now_ms=START_MS)
    (leased,) = await stage.store.claim("edge", ["edge>hub"], 1, START_MS)
    await stage.store.release(leased, Waiting(("edge", "hub"), ("hub",)), note="", now_ms=START_MS, is_counted=True)
    async with running(stage.upkeep.run):
        await stage.pass_time(1.0)
        assert await stage.todo() == ["hub"]
        stage.board.unreachable("hub", "gone")
        await stage.pass_time(1.0)
        assert await stage.todo() == ["edge>hub"]


async def test_requests_of_a_paused_route_end_only_once_it_goes_on(stage: Stage) -> None:
    stage.judge = judge(to=["hub"], when_offline="reject")
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("hub",), route="cattle", confidence=0.5, decision={}, now_ms=START_MS)
    await stage.store.pause_route("cattle", "me", START_MS)
    async with running(stage.upkeep.run):
        stage.board.unreachable("hub", "gone")
        await stage.pass_time(1.0)
        assert await stage.states() == ["pending"]
        await stage.store.resume_route("cattle", "me", START_MS)
        await stage.pass_time(1.0)
        assert await stage.states() == ["answered"]


async def test_request_that_may_not_wait_ends_when_it_is_brought_back_and_its_tier_is_down(stage: Stage) -> None:
    stage.judge = judge(to=["hub"], when_offline="reject")
    await stage.store.recover(START_MS, ("hub",))
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("hub",), route="cattle", confidence=0.5, decision={}, now_ms=START_MS)
    await order(stage.store, row.id, START_MS, Order(Verb.DROP, undo_ms=60_000))
    async with running(stage.upkeep.run):
        stage.board.unreachable("hub", "gone")
        await stage.pass_time(1.0)
        await order(stage.store, row.id, START_MS, Order(Verb.UNDO))
        await stage.pass_time(1.0)
        assert await stage.states() == ["answered"]


async def test_dropped_request_ends_when_its_time_is_over_and_that_is_announced(stage: Stage) -> None:
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await order(stage.store, row.id, START_MS, Order(Verb.DROP, undo_ms=60_000))
    async with running(stage.upkeep.run):
        await stage.pass_time(59.0)
        assert (await stage.states(), stage.is_answer_announced) == (["dropped"], False)
        await stage.pass_time(1.0)
        assert (await stage.states(), stage.is_answer_announced) == (["cancelled"], True)


@pytest.mark.parametrize(
    ("when_offline", "state", "code"),
    [("reject", "answered", "offline_rejected"), ("queue", "pending", None)],
)
async def test_waiting_requests_of_a_route_that_rejects_end_when_their_last_tier_goes_down(
    stage: Stage, when_offline: str, state: str, code: str | None
) -> None:
    stage.judge = judge(to=["hub"], when_offline=when_offline)
    await stage.store.accept([request()], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("hub",), route="cattle", confidence=0.5, decision={}, now_ms=START_MS)
    async with running(stage.upkeep.run):
        await stage.pass_time(1.0)
        assert await stage.states() == ["pending"]
        stage.board.unreachable("hub", "gone")
        await stage.pass_time(1.0)
        assert await stage.states() == [state]
    answers = await stage.store.outbox_after(0, 10)
    assert [answer.reason for answer in answers] == ([] if code is None else [code])
