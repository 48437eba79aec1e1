"""An answer is heard while it is written, by those who asked for that."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, running, until
from tier_stage import Stage

from mqrouter.edge.store.store import Store
from mqrouter.errors import TransientError


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_progress_is_told_in_order_and_each_attempt_begins_anew(stage: Stage) -> None:
    hub, edge = ScriptedTier(["Half ", "an", TransientError("cut")]), ScriptedTier(["All ", "of it."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.answered("a?", "hub", "edge", progress=True)
    assert stage.announced.told == [(1, 0, "Half"), (2, 0, "All"), (2, 1, " of it.")]
    (message, *_) = stage.announced.messages
    assert message.topic == "mqrouter/farm/progress/d1/7"
    assert [body["answer"] for body in await stage.answers()] == ["All of it."]


async def test_nobody_is_told_who_did_not_ask(stage: Stage) -> None:
    async with running(stage.lane("hub", ScriptedTier(["Yes."])).run):
        await stage.answered("a?", "hub")
    assert stage.announced.messages == []


async def test_words_wait_for_the_interval_and_no_longer(stage: Stage) -> None:
    gate = asyncio.Event()
    hub = ScriptedTier(["One", " two", " three", gate, " four", " five"])
    async with running(stage.lane("hub", hub).run):
        await stage.ask("a?", "hub", progress=True)
        await until(lambda: stage.announced.told == [(1, 0, "One")])
        await stage.idle()
        assert len(stage.announced.messages) == 1
        stage.clock.advance(0.26)
        await until(lambda: len(stage.announced.messages) == 2)
        stage.clock.advance(10.0)
        gate.set()
        await until(lambda: stage.store.counts.total() == 0)
    assert stage.announced.told[1] == (1, 1, " two three")
    assert "".join(text for _, _, text in stage.announced.told) == "One two three four five"
