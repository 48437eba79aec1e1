"""On disk first, acknowledged afterwards, in the order of arrival; and a limit is an answer, not a silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import (
    LIMITS,
    PREFIX,
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

from mqrouter.core.rate import DeviceRates
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.intake import MAX_UNACKNOWLEDGEABLE, Intake
from mqrouter.flow.wakeup import Wakeup

MakeIntake = Callable[..., Intake]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def make_intake(store: Store, broker: FakeBroker, clock: FakeClock) -> MakeIntake:
    def make(*, max_backlog: int = 1000, max_pending: int = 1000, per_minute: int = 10_000) -> Intake:
        return Intake(
            store,
            broker,
            clock,
            TOPICS,
            LIMITS,
            max_backlog=max_backlog,
            max_pending=max_pending,
            rates=DeviceRates(per_minute),
            new_id=new_id,
            accepted=Wakeup(),
            answered=Wakeup(),
        )

    return make


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


async def test_backlog_is_bounded_within_one_batch_too(
    make_intake: MakeIntake, store: Store, broker: FakeBroker
) -> None:
    intake = make_intake(max_backlog=3)
    async with running(intake.run):
        for mid in range(10):
            intake.put(incoming(mid=mid, correlation=bytes([mid])))
        await until(lambda: len(broker.acknowledged) == 10)
        assert store.counts[State.RECEIVED] == 3
        assert await errors(store) == [b"error overloaded"] * 7
        intake.put(incoming(mid=11))
        await until(lambda: len(broker.acknowledged) == 11)
    assert (intake.counts["new"], intake.counts["refused"]) == (3, 8)


async def test_queue_for_tiers_is_bounded(make_intake: MakeIntake, store: Store, broker: FakeBroker) -> None:
    intake = make_intake(max_pending=1)
    async with running(intake.run):
        intake.put(incoming(mid=1))
        await until(lambda: broker.acknowledged)
        (row,) = await store.next_received(1, ())
        await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.0, decision={}, now_ms=0)
        intake.put(incoming(mid=2, correlation=b"2"))
        await until(lambda: len(broker.acknowledged) == 2)
        assert await errors(store) == [b"error queue_full"]


@pytest.mark.parametrize("limits", [{"max_backlog": 1}, {"per_minute": 1}])
async def test_duplicate_of_an_accepted_request_is_absorbed_over_any_limit(
    make_intake: MakeIntake, store: Store, broker: FakeBroker, limits: dict[str, Any]
) -> None:
    intake = make_intake(**limits)
    async with running(intake.run):
        for mid in (1, 2):
            intake.put(incoming("wet?", mid=mid, correlation=b"c"))
            await until(lambda mid=mid: len(broker.acknowledged) == mid)  # type: ignore[misc]
    assert intake.counts == {"new": 1, "absorbed": 1}
    assert await errors(store) == []


async def test_flood_without_acknowledgement_is_dropped_beyond_its_bound(make_intake: MakeIntake) -> None:
    intake = make_intake()
    for _ in range(MAX_UNACKNOWLEDGEABLE + 7):
        intake.put(incoming(qos=0))
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
