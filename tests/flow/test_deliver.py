"""Answers leave from the outbox while connected, within the window, until the broker has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes import START_MS, FakeBroker, FakeClock, FlakyDatabase, refused, request, running, settled, until

from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.deliver import MAX_LOSSES, Deliver, Publication
from mqrouter.flow.wakeup import Wakeup

WINDOW = 3


class Stage:
    """The deliverer with what stands around it."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.broker = FakeBroker()
        self.answered = Wakeup()
        self.deliver = Deliver(store, self.broker, clock, max_in_flight=WINDOW, answered=self.answered)

    async def answer(self, text: str) -> None:
        await self.store.accept([request(text, correlation=text.encode())], START_MS)
        (row,) = await self.store.next_received(1, ())
        await self.store.finish(row, Answer(text=text), State.ANSWERED, START_MS)
        self.answered.give()

    async def published(self, *bodies: str) -> None:
        """Exactly these have been published, in this order."""
        await until(lambda: len(self.broker.published) >= len(bodies))
        await settled(self.database)
        assert [body.decode() for body in self.broker.bodies] == list(bodies)

    async def states(self) -> list[str]:
        return await self.database.read(
            lambda db: [row[0] for row in db.execute("SELECT state FROM requests ORDER BY seq")]
        )


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> AsyncIterator[Stage]:
    yield Stage(store, database, clock)


async def test_answer_is_published_and_done_when_acknowledged(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.published("a")
        assert (await stage.states(), stage.deliver.in_flight) == (["answered"], 1)
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)
        assert (await stage.states(), stage.deliver.in_flight) == (["delivered"], 0)


async def test_error_answers_of_refused_requests_are_delivered(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.store.accept([refused(b"\xff")], START_MS)
        stage.answered.give()
        await stage.published("error not_utf8: byte 0 is not UTF-8")
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)
        assert await stage.states() == ["dead"]


async def test_nothing_is_published_while_disconnected(stage: Stage) -> None:
    stage.broker.is_connected = False
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.published()
        stage.broker.is_connected = True
        stage.deliver.reconnected()
        await stage.published("a")


async def test_window_is_respected(stage: Stage) -> None:
    async with running(stage.deliver.run):
        for text in "abcde":
            await stage.answer(text)
        await stage.published("a", "b", "c")
        stage.deliver.acknowledged(2, Publication.TAKEN)
        await stage.published("a", "b", "c", "d")
        stage.deliver.acknowledged(1, Publication.TAKEN)
        stage.deliver.acknowledged(3, Publication.TAKEN)
        await stage.published(*"abcde")


async def test_window_of_the_broker_is_respected_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """`publish` returning None while connected means: no more before a PUBACK."""
    real, is_full = stage.broker.publish, True
    monkeypatch.setattr(
        stage.broker, "publish", lambda m, now: None if is_full and stage.broker.published else real(m, now)
    )
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.answer("b")
        await stage.published("a")
        is_full = False
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await stage.published("a", "b")


async def test_what_was_in_flight_goes_out_again_after_a_reconnect(stage: Stage) -> None:
    async with running(stage.deliver.run):
        for text in "abcd":
            await stage.answer(text)
        await stage.published("a", "b", "c")
        stage.deliver.acknowledged(2, Publication.TAKEN)
        await stage.published("a", "b", "c", "d")
        stage.deliver.reconnected()
        await stage.published("a", "b", "c", "d", "a", "c", "d")
        stage.deliver.acknowledged(1, Publication.TAKEN)  # of the old connection: nobody waits for it
        await settled(stage.database)
        assert stage.deliver.delivered == 1
        for number in (5, 6, 7):
            stage.deliver.acknowledged(number, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 4)
        assert await stage.states() == ["delivered"] * 4


async def test_reconnect_during_a_read_forgets_nothing(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.published("a")
        await stage.store.accept([refused(b"\xff")], START_MS)
        stage.database.may_read.clear()
        stage.answered.give()
        await until(lambda: stage.database.reads_waiting)  # it has read what comes after "a"
        stage.deliver.reconnected()
        stage.database.may_read.set()
        await stage.published("a", "a", "error not_utf8: byte 0 is not UTF-8")


async def test_answer_that_is_not_yet_read_is_waited_for(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await settled(stage.database)
        stage.database.may_read.clear()
        stage.deliver.look_again()
        await until(lambda: stage.database.reads_waiting == 1)  # it has found nothing, and does not know it yet
        await stage.store.accept([refused(b"\xff")], START_MS)
        stage.deliver.look_again()
        stage.database.may_read.set()
        await until(lambda: stage.deliver.in_flight == 1)
        assert not stage.deliver.is_done
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.deliver.is_done)


async def test_answer_without_a_subscriber_waits_and_is_offered_again(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        for offer, pause_s in enumerate([2, 4, 8], start=1):
            await stage.published(*["a"] * offer)
            stage.deliver.acknowledged(offer, Publication.NO_SUBSCRIBER)
            await until(lambda: not stage.deliver.in_flight)
            await settled(stage.database)
            due_ms = stage.clock.now_ms() + 1000 * pause_s
            assert await stage.store.next_due_ms() == due_ms
            stage.clock.advance(pause_s)
            assert await stage.store.wake_due(stage.clock.now_ms()) == (0, 1)
            stage.answered.give()
        await stage.published("a", "a", "a", "a")
        stage.deliver.acknowledged(4, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)


async def test_answer_the_broker_refused_is_kept(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.answer("b")
        await stage.published("a", "b")
        stage.deliver.acknowledged(1, Publication.REFUSED)
        stage.deliver.acknowledged(2, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)
        await settled(stage.database)
        assert await stage.states() == ["answered", "delivered"]


async def test_duplicate_question_sends_the_answer_again(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.published("a")
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)
        await stage.store.accept([request("a", correlation=b"a")], START_MS)
        stage.answered.give()
        await stage.published("a", "a")


async def test_delivery_is_recorded_once_the_store_works_again(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("a")
        await stage.published("a")
        stage.database.error = StoreError("the disk is full")
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.database.refused == 1)
        stage.clock.advance(1.01)
        await until(lambda: stage.database.refused == 2)
        stage.database.error = None
        stage.clock.advance(1.01)
        await until(lambda: stage.deliver.delivered == 1)
        await stage.published("a")
        assert await stage.states() == ["delivered"]


async def test_failed_disk_ends_the_stage(stage: Stage) -> None:
    task = asyncio.create_task(stage.deliver.run())
    await stage.answer("a")
    await stage.published("a")
    stage.database.error = StoreFatalError("fsync failed")
    stage.deliver.acknowledged(1, Publication.TAKEN)
    await until(task.done)
    with pytest.raises(BaseExceptionGroup) as caught:
        task.result()
    assert caught.group_contains(StoreFatalError)


async def test_new_answers_flow_after_everything_old_was_purged(stage: Stage) -> None:
    async with running(stage.deliver.run):
        for number, text in enumerate("abc", start=1):
            await stage.answer(text)
            await stage.published(*"abc"[:number])
            stage.deliver.acknowledged(number, Publication.TAKEN)
            await until(lambda number=number: stage.deliver.delivered == number)  # type: ignore[misc]
        assert await stage.store.purge(stage.clock.now_ms() + 1, 0) == 3
        await stage.answer("d")
        await stage.published(*"abcd")


async def test_better_answer_follows_a_provisional_one_that_is_still_in_flight(stage: Stage) -> None:
    hub = Waiting(("hub",), ("hub",))
    await stage.store.accept([request('{"question": "a"}', correlation=b"a")], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("edge",), route=None, confidence=0, decision={}, now_ms=START_MS)
    (lease,) = await stage.store.claim("edge", ["edge"], 1, START_MS)
    async with running(stage.deliver.run):
        await stage.store.answer_provisionally(lease, Answer(text="Maybe.", is_provisional=True), hub, START_MS)
        stage.answered.give()
        await until(lambda: stage.broker.published)
        await stage.store.finish(row, Answer(text="Surely."), State.ANSWERED, START_MS)
        stage.answered.give()
        await until(lambda: len(stage.broker.published) == 2)
        stage.deliver.acknowledged(1, Publication.TAKEN)
        await until(lambda: stage.deliver.in_flight == 1)
        await settled(stage.database)
        assert (await stage.states(), stage.deliver.delivered) == (["answered"], 0)
        stage.deliver.acknowledged(2, Publication.TAKEN)
        await until(lambda: stage.deliver.delivered == 1)
    assert await stage.states() == ["delivered"]
    assert [b'"provisional":true' in body for body in stage.broker.bodies] == [True, False]


async def test_provisional_answer_in_flight_at_a_reconnect_gives_way_to_the_better_one(stage: Stage) -> None:
    hub = Waiting(("hub",), ("hub",))
    await stage.store.accept([request('{"question": "a"}', correlation=b"a")], START_MS)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("edge",), route=None, confidence=0, decision={}, now_ms=START_MS)
    (lease,) = await stage.store.claim("edge", ["edge"], 1, START_MS)
    async with running(stage.deliver.run):
        await stage.store.answer_provisionally(lease, Answer(text="Maybe.", is_provisional=True), hub, START_MS)
        stage.answered.give()
        await until(lambda: stage.broker.published)
        stage.broker.is_connected = False
        await stage.store.finish(row, Answer(text="Surely."), State.ANSWERED, START_MS)
        stage.broker.is_connected = True
        stage.deliver.reconnected()
        await until(lambda: len(stage.broker.published) == 2)
        await settled(stage.database)
    assert [b'"provisional":true' in body for body in stage.broker.bodies] == [True, False]


async def test_answer_at_which_connections_break_lets_the_others_pass(stage: Stage) -> None:
    async with running(stage.deliver.run):
        await stage.answer("unbearable")
        for losses in range(1, MAX_LOSSES + 1):
            await stage.published(*["unbearable"] * losses)
            stage.deliver.reconnected()
        await settled(stage.database)
        await stage.answer("b")
        await stage.published(*["unbearable"] * MAX_LOSSES, "b")
        assert await stage.states() == ["answered", "answered"]
        stage.clock.advance(10.0)
        await stage.store.wake_due(stage.clock.now_ms())
        stage.answered.give()
        await stage.published(*["unbearable"] * MAX_LOSSES, "b", "unbearable")
