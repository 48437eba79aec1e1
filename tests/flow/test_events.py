"""Events say what happened to whose question, never what was asked, and of private questions nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fakes import LIMITS, PREFIX, FakeClock, FakeInHand, HashEmbedder, judge, request, running, until
from tier_stage import Announced

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.privacy import Privacy
from mqrouter.core.records import OutboxRow
from mqrouter.core.request import OutMessage
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.flow.decide import Decide
from mqrouter.flow.events import Events
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

ALL = ("decision", "finished", "tier")
NOTHING_PRIVATE = Privacy()
ROW = OutboxRow(
    seq=1,
    request=1,
    message=OutMessage("t", b"because", None, "text/plain", ()),
    tries=0,
    request_id="r1",
    device="d1",
    route="cattle",
    tier="hub",
    model="m",
    state=State.ANSWERED,
    reason=None,
    attempts=1,
    received_at_ms=0,
)


def said(announced: Announced) -> list[tuple[str, dict[str, Any]]]:
    return [
        (message.topic.removeprefix(f"{PREFIX}/event/"), json.loads(message.payload)) for message in announced.messages
    ]


async def decide(
    store: Store, clock: FakeClock, events: Events, *questions: str, privacy: Privacy = NOTHING_PRIVATE
) -> None:
    """The questions are decided."""
    await store.accept([request(text, correlation=text.encode()) for text in questions], clock.now_ms())
    board = TierBoard({name: Breaker(3, Backoff(1.0, 60.0)) for name in ("hub", "edge")}, clock, lambda: 0.5)
    accepted = Wakeup()
    accepted.give()
    stage = Decide(
        store,
        HashEmbedder(),
        replace(judge(), privacy=privacy),
        board,
        clock,
        LIMITS,
        FakeInHand(),
        accepted=accepted,
        answered=Wakeup(),
        decided=events.decided,
    )
    async with running(stage.run):
        await until(lambda: store.counts["pending"] == len(questions))


async def test_decision_is_told_without_the_question(store: Store, clock: FakeClock) -> None:
    announced = Announced()
    events = Events(announced, clock, PREFIX, ALL)
    await decide(store, clock, events, "how are the cows", '{"question": "is the cow ill", "private": true}')

    ((kind, body),) = said(announced)
    assert (kind, body["device"], body["route"], body["tiers"]) == ("decision", "d1", "cattle", ["hub", "edge"])
    assert "how are the cows" not in announced.messages[0].payload.decode()


async def test_question_found_to_be_private_is_not_told(store: Store, clock: FakeClock) -> None:
    announced = Announced()
    private = Privacy(devices=("d*",))
    await decide(store, clock, Events(announced, clock, PREFIX, ALL), "how are the cows", privacy=private)
    assert announced.messages == []


@pytest.mark.parametrize("kinds", [(), ("finished", "tier")])
async def test_event_that_was_not_asked_for_is_not_told(store: Store, clock: FakeClock, kinds: tuple[str, ...]) -> None:
    announced = Announced()
    await decide(store, clock, Events(announced, clock, PREFIX, kinds), "how are the cows")
    assert announced.messages == []


def test_end_is_told_without_the_answer(clock: FakeClock) -> None:
    announced = Announced()
    Events(announced, clock, PREFIX, ALL).finished(ROW)
    ((kind, body),) = said(announced)
    assert (kind, body["id"], body["state"], body["tier"]) == ("finished", "r1", "delivered", "hub")
    assert "because" not in announced.messages[0].payload.decode()


@pytest.mark.parametrize("more", [{"is_private": True}, {"is_provisional": True}, {"route": None, "tier": None}])
def test_end_of_what_is_or_may_be_private_is_not_told(clock: FakeClock, more: dict[str, Any]) -> None:
    announced = Announced()
    Events(announced, clock, PREFIX, ALL).finished(replace(ROW, **more))
    assert announced.messages == []


def test_expired_question_says_so(clock: FakeClock) -> None:
    announced = Announced()
    Events(announced, clock, PREFIX, ALL).finished(replace(ROW, state=State.EXPIRED, reason="expired", tier=None))
    assert [(body["state"], body["code"]) for _, body in said(announced)] == [("expired", "expired")]
