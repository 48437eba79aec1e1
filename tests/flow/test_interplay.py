"""Rules of different origin that meet in one request."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, judge, request, running, until
from structlog.testing import capture_logs
from tier_stage import DOWN, Stage, told

from mqrouter.core.backoff import Backoff
from mqrouter.core.events import Done
from mqrouter.core.privacy import Privacy
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import PermanentError

CUT: list[str | Done | Exception | asyncio.Event] = ["A usable beginning", Done("length", "scripted", 3, 5)]


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_what_was_said_with_a_private_turn_in_view_is_not_logged(stage: Stage) -> None:
    edge = ScriptedTier(["The code is 4711."], ["As said, 4711."], ["It is dry."])
    lane = stage.lane("edge", edge, logs_text=True)
    with capture_logs() as said:
        async with running(lane.run):
            await stage.answered("my secret?", "edge", session="s", private=True)
            await stage.answered("again?", "edge", session="s")
            await stage.answered("how dry?", "edge")
    assert "It is dry." in str(said)
    assert "4711" not in str(said)


@pytest.mark.parametrize("hub", [DOWN, PermanentError("HTTP 400")])
async def test_lesser_answer_is_sent_where_the_better_tier_fails_after_all(stage: Stage, hub: Exception) -> None:
    stage.judge = judge(when_offline="answer_locally")
    better = ScriptedTier(hub, probes=[False])
    async with running(stage.lane("edge", ScriptedTier(CUT, CUT)).run, stage.lane("hub", better).run):
        await stage.ask("a?", "edge", "hub")
        await until(lambda: better.calls and stage.store.counts[State.PENDING] == 1)
        stage.clock.advance(10.0)
        await stage.store.restart_rounds("hub", stage.clock.now_ms(), Backoff(0.001, 0.001))  # upkeep does
        await stage.store.wake_due(stage.clock.now_ms() + 10)
        stage.board.wake_all()
        await until(lambda: stage.store.counts.total() == 0)
    (answer,) = await stage.answers()
    assert answer["answer"] == "A usable beginning"


async def test_turn_of_a_topic_made_private_since_stays_away_from_an_untrusted_tier(stage: Stage) -> None:
    hub = ScriptedTier(["A."], ["B."])
    async with running(stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        stage.judge = replace(stage.judge, privacy=Privacy(topics=("mqrouter/farm/ask/d1/7",)))
        payload = json.dumps({"question": "b?", "id": "b", "session": "s"})
        now_ms = stage.clock.now_ms()
        await stage.store.accept([request(payload, topic="mqrouter/farm/ask/d1/8", now_ms=now_ms)], now_ms)
        (row,) = await stage.store.next_received(1, ())
        await stage.store.queue_for_tiers(row, ("hub",), route="cattle", confidence=0.5, decision={}, now_ms=now_ms)
        stage.board.wake_all()
        await until(lambda: stage.store.counts.total() == 0)
    assert told(hub.calls[-1]) == ["b?"]
