"""On disk first, acknowledged afterwards, in the order of arrival; and a limit is an answer, not a silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import (
    LIMITS,
    PREFIX,
    QUEUE,
    TOPICS,
    FakeBroker,
    FakeClock,
    FlakyDatabase,
    incoming,
    new_id,
    running,
    settled,
    until,
)

from mqrouter.core.admission import WhenFull
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.rate import DeviceRates
from mqrouter.core.states import State
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import StoreError, StoreFatalError, StoreFullError
from mqrouter.flow.intake import MAX_UNACKNOWLEDGEABLE, Intake
from mqrouter.flow.wakeup import Wakeup

MakeIntake = Callable[..., Intake]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def make_intake(store: Store, broker: FakeBroker, clock: FakeClock) -> MakeIntake:
    def make(
        own_store: Store = store,
        *,
        per_minute: int = 10_000,
        answered: Wakeup | None = None,
        disk: Callable[[], DiskLevel] = lambda: DiskLevel.ENOUGH,
    ) -> Intake:
        return Intake(
            own_store,
            broker,
            clock,
            TOPICS,
            LIMITS,
            rates=DeviceRates(per_minute),
            new_id=new_id,
            accepted=Wakeup(),
            answered=answered or Wakeup(),
            disk=disk,
        )

    return make


def narrow_store(database: FlakyDatabase, **limits: Any) -> Store:
    return Store(database, Policy(replace(QUEUE, **limits), 600_000, 3_600_000))


async def errors(store: Store) -> list[bytes]:
    return [row.message.payload.partition(b":")[0] for row in await store.outbox_after(0, 1000)]


async def test_message_is_acknowledged_once_it_is_on_disk(
    make_intake: MakeIntake, store: Store, broker: FakeBroker
) -> None:
    intake = make_intake()
    async with running(intake.run):
        intake.put(incoming("wet?", mid=1))
        assert broker.acknowledged == []
        await until(lambda: broker.acknowledged)
        assert len(await store.next_received(10, ())) == 1
    assert intake.counts == {"new": 1}


async def test_acknowledgements_keep_the_order_of_arrival(
    make_intake: MakeIntake, broker: FakeBroker, store: Store
) -> None:
    intake = make_intake()
    messages = [
        incoming(payload, mid=mid, is_retained=mid == 4)
        for mid, payload in enumerate([b"one?", b"\xff", b"two?", b"", b"old?", b"three?"])
    ]
    async with running(intake.run):
        for message in messages:
            intake.put(message)
        await until(lambda: len(broker.acknowledged) == len(messages))
    assert broker.acknowledged == messages
    assert intake.counts == {"new": 3, "refused": 2, "retained_ignored": 1}


async def test_nothing_is_acknowledged_while_the_store_fails(
    make_intake: MakeIntake, broker: FakeBroker, clock: FakeClock, store: Store, database: FlakyDatabase
) -> None:
    intake = make_intake()
    database.error = StoreError("the disk is full")
    async with running(intake.run):
        intake.put(incoming(mid=1))
        await until(lambda: intake.is_store_failing)
        for tries in range(1, 4):
            await until(lambda tries=tries: database.refused == tries)  # type: ignore[misc]
            intake.put(incoming(mid=1 + tries))
            await settled(database)
            assert broker.acknowledged == []
            clock.advance(1.01)
        database.error = None
        clock.advance(1.01)
        await until(lambda: len(broker.acknowledged) == 4)
    assert not intake.is_store_failing
    assert [message.mid for message in broker.acknowledged] == [1, 2, 3, 4]
    assert store.counts[State.RECEIVED] == 4


async def test_disk_that_can_no_longer_be_trusted_ends_the_stage(
    make_intake: MakeIntake, broker: FakeBroker, database: FlakyDatabase
) -> None:
    intake = make_intake()
    database.error = StoreFatalError("fsync failed")
    intake.put(incoming())
    with pytest.raises(StoreFatalError):
        await intake.run()
    assert broker.acknowledged == []


async def test_retained_question_is_ignored(make_intake: MakeIntake, store: Store, broker: FakeBroker) -> None:
    intake = make_intake()
    async with running(intake.run):
        intake.put(incoming(is_retained=True))
        await until(lambda: broker.acknowledged)
    assert store.counts.total() == 0
    assert await errors(store) == []


async def test_device_over_its_rate_is_told_so(
    make_intake: MakeIntake, store: Store, clock: FakeClock, broker: FakeBroker
) -> None:
    intake = make_intake(per_minute=2)
    async with running(intake.run):
        for mid in range(4):
            intake.put(incoming(mid=mid, correlation=bytes([mid])))
        intake.put(incoming(mid=9, topic=f"{PREFIX}/ask/d2"))
        await until(lambda: len(broker.acknowledged) == 5)
        assert await errors(store) == [b"error rate_limited"] * 2
        clock.advance(31.0)
        intake.put(incoming(mid=10))
        await until(lambda: len(broker.acknowledged) == 6)
    assert intake.counts == {"new": 4, "refused": 2}


async def test_queue_is_bounded_within_one_batch_too(
    database: FlakyDatabase, make_intake: MakeIntake, broker: FakeBroker
) -> None:
    store = narrow_store(database, max_requests=3)
    intake = make_intake(store)
    async with running(intake.run):
        for mid in range(10):
            intake.put(incoming(mid=mid, correlation=bytes([mid])))
        await until(lambda: len(broker.acknowledged) == 10)
        assert store.counts[State.RECEIVED] == 3
        assert await errors(store) == [b"error queue_full"] * 7
        intake.put(incoming(mid=11))
        await until(lambda: len(broker.acknowledged) == 11)
    assert (intake.counts["new"], intake.counts["refused"]) == (3, 8)


async def test_dropped_question_is_answered_at_once(
    database: FlakyDatabase, make_intake: MakeIntake, broker: FakeBroker
) -> None:
    store = narrow_store(database, max_requests=1, when_full=WhenFull.DROP_OLDEST)
    answered = Wakeup()
    intake = make_intake(store, answered=answered)
    async with running(intake.run):
        intake.put(incoming(mid=1, correlation=b"1"))
        await until(lambda: len(broker.acknowledged) == 1)
        assert not answered._event.is_set()
        intake.put(incoming(mid=2, correlation=b"2"))
        await until(answered._event.is_set)
    assert intake.counts == {"new": 2}
    assert await errors(store) == [b"error queue_full"]


async def test_payload_too_large_is_not_kept_in_memory(
    make_intake: MakeIntake, store: Store, broker: FakeBroker
) -> None:
    intake = make_intake()
    intake.put(incoming(b"x" * 5_000_000))
    assert sum(len(message.payload) for message in intake._inbox) == LIMITS.max_payload_bytes
    async with running(intake.run):
        await until(lambda: broker.acknowledged)
    (answer,) = await store.outbox_after(0, 10)
    assert answer.message.payload.startswith(b"error too_large: 5000000 bytes")


@pytest.mark.parametrize("limits", [{"max_requests": 1}, {"per_minute": 1}])
async def test_duplicate_of_an_accepted_request_is_absorbed_over_any_limit(
    database: FlakyDatabase, make_intake: MakeIntake, broker: FakeBroker, limits: dict[str, Any]
) -> None:
    per_minute = limits.pop("per_minute", 10_000)
    store = narrow_store(database, **limits)
    intake = make_intake(store, per_minute=per_minute)
    async with running(intake.run):
        for mid in (1, 2):
            intake.put(incoming("wet?", mid=mid, correlation=b"c"))
            await until(lambda mid=mid: len(broker.acknowledged) == mid)  # type: ignore[misc]
    assert intake.counts == {"new": 1, "absorbed": 1}
    assert await errors(store) == []


async def test_flood_without_acknowledgement_is_dropped_beyond_its_bound(make_intake: MakeIntake) -> None:
    intake = make_intake()
    for _ in range(MAX_UNACKNOWLEDGEABLE + 7):
        intake.put(incoming("?", qos=0))
    intake.put(incoming(qos=1))  # never dropped: the broker waits for its acknowledgement
    assert intake.counts == {"dropped_qos0": 7}


async def test_stopped_intake_leaves_the_rest_to_the_broker(
    make_intake: MakeIntake, broker: FakeBroker, store: Store
) -> None:
    intake = make_intake()
    intake.put(incoming())
    intake.stop()
    await intake.run()
    assert (broker.acknowledged, store.counts.total()) == ([], 0)


async def test_low_disk_refuses_new_questions_and_knows_old_ones(
    make_intake: MakeIntake, broker: FakeBroker, store: Store
) -> None:
    level = [DiskLevel.ENOUGH]
    intake = make_intake(disk=lambda: level[0])
    async with running(intake.run):
        intake.put(incoming("old?", mid=1, correlation=b"1"))
        await until(lambda: len(broker.acknowledged) == 1)
        level[0] = DiskLevel.LOW
        intake.put(incoming("old?", mid=2, correlation=b"1"))
        intake.put(incoming("new?", mid=3, correlation=b"2"))
        await until(lambda: len(broker.acknowledged) == 3)
    assert await errors(store) == [b"error overloaded"]
    assert intake.counts == {"new": 1, "absorbed": 1, "refused": 1}


async def test_full_disk_acknowledges_nothing_until_there_is_room(
    make_intake: MakeIntake, broker: FakeBroker, store: Store, clock: FakeClock, database: FlakyDatabase
) -> None:
    level = [DiskLevel.FULL]
    intake = make_intake(disk=lambda: level[0])
    async with running(intake.run):
        intake.put(incoming("wet?", mid=1))
        await settled(database)
        clock.advance(60.0)
        await settled(database)
        assert broker.acknowledged == [] and await store.next_received(10, ()) == []
        level[0] = DiskLevel.ENOUGH
        clock.advance(2.0)
        await until(lambda: broker.acknowledged)
    assert intake.counts == {"new": 1}


async def test_batch_that_met_a_full_disk_leaves_the_ballast_alone(
    make_intake: MakeIntake, broker: FakeBroker, clock: FakeClock, database: FlakyDatabase
) -> None:
    level = [DiskLevel.ENOUGH]
    intake = make_intake(disk=lambda: level[0])
    database.error = StoreFullError("database or disk is full")
    async with running(intake.run):
        intake.put(incoming("wet?", mid=1))
        await until(lambda: database.refused)
        database.error, level[0] = None, DiskLevel.FULL
        clock.advance(60.0)
        await settled(database)
        assert broker.acknowledged == []
        level[0] = DiskLevel.ENOUGH
        clock.advance(2.0)
        await until(lambda: broker.acknowledged)


async def test_stop_on_a_full_disk_is_no_wait(make_intake: MakeIntake, clock: FakeClock, broker: FakeBroker) -> None:
    intake = make_intake(disk=lambda: DiskLevel.FULL)
    intake.put(incoming("wet?", mid=1))
    task = asyncio.create_task(intake.run())
    await asyncio.sleep(0)
    intake.stop()
    clock.advance(2.0)
    await task
    assert broker.acknowledged == []
