"""Verdicts come in beside the questions: on disk before they are acknowledged, in order, and never answered."""

from __future__ import annotations

import pytest
import structlog
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

from mqrouter.core.feedback import examples_of
from mqrouter.core.rate import DeviceRates
from mqrouter.edge.store import feedback
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError
from mqrouter.flow.feedback import Feedbacks
from mqrouter.flow.intake import Intake
from mqrouter.flow.wakeup import Wakeup


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


def make_intake(store: Store, broker: FakeBroker, clock: FakeClock, *, per_minute: int = 100) -> Intake:
    feedbacks = Feedbacks(
        store, clock, TOPICS, LIMITS.max_json_depth, rates=DeviceRates(per_minute), routes=lambda: ("cattle",)
    )
    return Intake(
        store,
        broker,
        clock,
        TOPICS,
        LIMITS,
        rates=DeviceRates(100),
        new_id=new_id,
        accepted=Wakeup(),
        answered=Wakeup(),
        feedbacks=feedbacks,
    )


async def verdicts(database: FlakyDatabase) -> list[str]:
    return await database.read(lambda db: [row["verdict"] for row in db.execute("SELECT verdict FROM feedback")])


QUESTION = incoming("wet?", topic=f"{PREFIX}/ask/d1/7", mid=1)
VERDICT = incoming("good", topic=f"{PREFIX}/feedback/d1/7", mid=2)


async def test_verdict_on_a_question_of_the_same_batch_counts(
    store: Store, broker: FakeBroker, clock: FakeClock, database: FlakyDatabase
) -> None:
    intake = make_intake(store, broker, clock)
    intake.put(VERDICT)
    intake.put(QUESTION)
    async with running(intake.run):
        await until(lambda: len(broker.acknowledged) == 2)
    assert broker.acknowledged == [VERDICT, QUESTION]
    assert intake.counts == {"new": 1, "feedback": 1}
    assert await verdicts(database) == ["good"]


async def test_bad_feedback_is_counted_acknowledged_and_not_answered(
    store: Store, broker: FakeBroker, clock: FakeClock
) -> None:
    intake = make_intake(store, broker, clock)
    messages = [
        incoming("good", topic=f"{PREFIX}/feedback/d1/unknown", mid=1, response_topic="mine"),
        incoming("marvellous", topic=f"{PREFIX}/feedback/d1/7", mid=2, response_topic="mine"),
    ]
    for message in messages:
        intake.put(message)
    async with running(intake.run):
        await until(lambda: broker.acknowledged == messages)
    assert intake.counts == {"feedback_refused": 2}
    assert await store.outbox_after(0, 10) == []
    assert await store.next_received(10, ()) == []


@pytest.mark.parametrize(
    ("payload", "route"),
    [
        ("wrong_route", None),
        ('{"verdict": "wrong_route", "note": "not about fields"}', None),
        ('{"verdict": "wrong_route", "route": "cattle"}', "cattle"),
    ],
)
async def test_wrong_route_is_kept_and_teaches_only_where_it_names_the_right_one(
    store: Store, broker: FakeBroker, clock: FakeClock, database: FlakyDatabase, payload: str, route: str | None
) -> None:
    intake = make_intake(store, broker, clock)
    intake.put(QUESTION)
    intake.put(incoming(payload, topic=f"{PREFIX}/feedback/d1/7", mid=2))
    with structlog.testing.capture_logs() as logs:
        async with running(intake.run):
            await until(lambda: len(broker.acknowledged) == 2)
    (said,) = [entry for entry in logs if entry["event"] == "feedback.recorded"]
    assert (said["verdict"], said["names_no_route"]) == ("wrong_route", route is None)
    (judged,) = await database.read(lambda db: feedback.read(db, LIMITS))
    assert (judged.verdict, judged.right_route) == ("wrong_route", route)
    assert examples_of([judged], ["cattle"]).pairs == ((("wet?", "cattle"),) if route else ())
    assert await database.read(feedback.count) == (1 if route else 0)
    assert broker.published == [] and intake.counts == {"new": 1, "feedback": 1}


async def test_verdict_is_not_acknowledged_before_it_is_on_disk(
    store: Store, broker: FakeBroker, clock: FakeClock, database: FlakyDatabase
) -> None:
    intake = make_intake(store, broker, clock)
    async with running(intake.run):
        intake.put(QUESTION)
        await until(lambda: broker.acknowledged)
        database.error = StoreError("the disk is full")
        intake.put(VERDICT)
        await until(lambda: intake.is_store_failing)
        await settled(database)
        assert broker.acknowledged == [QUESTION]
        database.error = None
        clock.advance(1.01)
        await until(lambda: broker.acknowledged == [QUESTION, VERDICT])
    assert await verdicts(database) == ["good"]


async def test_device_that_floods_is_held_to_its_rate(store: Store, broker: FakeBroker, clock: FakeClock) -> None:
    intake = make_intake(store, broker, clock, per_minute=2)
    intake.put(QUESTION)
    for mid in range(2, 7):
        intake.put(incoming("good", topic=f"{PREFIX}/feedback/d1/7", mid=mid))
    async with running(intake.run):
        await until(lambda: len(broker.acknowledged) == 6)
    assert (intake.counts["feedback"], intake.counts["feedback_refused"]) == (2, 3)
