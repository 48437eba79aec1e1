"""Sessions that go on across tiers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, judge, request, running, until
from tier_stage import Stage, told, with_provisional

from mqrouter.core.personal_data import Kind
from mqrouter.core.privacy import Privacy
from mqrouter.edge.store.store import Store
from mqrouter.errors import PermanentError, TransientError


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_session_goes_on_at_another_tier(stage: Stage) -> None:
    edge, hub = ScriptedTier(["A."], ["D."]), ScriptedTier(["B."], ["C."])
    async with running(stage.lane("edge", edge).run, stage.lane("hub", hub).run):
        await stage.answered("a?", "edge", session="s")
        await stage.answered("b?", "hub", session="s")
        await stage.answered("c?", "hub", session="s")
        await stage.answered("d?", "edge", session="s")
    assert told(hub.calls[0]) == ["a?", "A.", "b?"]
    assert told(edge.calls[1]) == ["a?", "A.", "b?", "B.", "c?", "C.", "d?"]


async def test_both_tiers_of_one_question_are_sent_the_same(stage: Stage) -> None:
    hub, edge = ScriptedTier(["A."], TransientError("HTTP 500")), ScriptedTier(["B."])
    async with running(stage.lane("edge", edge).run, stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        await stage.answered("b?", "hub", "edge", session="s")
    assert hub.calls[1].messages == edge.calls[0].messages
    assert told(edge.calls[0]) == ["a?", "A.", "b?"]


async def test_session_is_the_devices_own(stage: Stage) -> None:
    hub = ScriptedTier(["A."])
    async with running(stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        await stage.answered("b?", "hub", session="s", device="d2")
        await stage.answered("c?", "hub", session="t")
        await stage.answered("d?", "hub")
    assert [told(call) for call in hub.calls] == [["a?"], ["b?"], ["c?"], ["d?"]]


async def test_conversation_of_the_senders_own_is_taken_as_given(stage: Stage) -> None:
    hub = ScriptedTier(["A."])
    async with running(stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        body = json.dumps({"messages": [{"role": "user", "content": "b?"}], "session": "s"})
        await stage.store.accept([request(body)], stage.clock.now_ms())
        (row,) = await stage.store.next_received(1, ())
        await stage.store.queue_for_tiers(row, ("hub",), route=None, confidence=0, decision={}, now_ms=0)
        stage.board.wake_all()
        await until(lambda: len(hub.calls) == 2)
        await stage.answered("c?", "hub", session="s")
    assert [told(call) for call in hub.calls[1:]] == [["b?"], ["a?", "A.", "b?", "A.", "c?"]]


async def test_provisional_answer_is_a_turn_until_there_is_a_better_one(stage: Stage) -> None:
    stage.judge = judge(when_offline="answer_then_refine")
    await with_provisional(stage, session="s")
    edge, hub = ScriptedTier(["B."]), ScriptedTier(["A."])
    async with running(stage.lane("edge", edge).run):
        await stage.ask("b?", "edge", session="s")
        await until(lambda: edge.calls and stage.store.counts.total() == 1)
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        stage.clock.advance(60.0)
        stage.board.wake_all()
        await until(lambda: stage.store.counts.total() == 0)
        await stage.answered("c?", "edge", session="s")
    assert told(edge.calls[0]) == ["a?", "Maybe.", "b?"]
    assert told(hub.calls[0]) == ["a?"]
    assert told(edge.calls[1]) == ["a?", "A.", "b?", "B.", "c?"]


async def test_question_that_failed_is_no_turn(stage: Stage) -> None:
    hub = ScriptedTier(PermanentError("HTTP 400"), ["B."])
    async with running(stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        await stage.answered("b?", "hub", session="s")
    assert told(hub.calls[1]) == ["b?"]


async def test_private_turn_never_reaches_an_untrusted_tier_not_even_through_an_answer(stage: Stage) -> None:
    edge, hub = ScriptedTier(["Noted: 1234."], ["It is 1234."], ["Yes."]), ScriptedTier(["No idea."])
    facts = {name: replace(tier, context_chars=1000) for name, tier in stage.judge.tiers.items()}
    stage.judge = judge(tiers=facts)
    async with running(stage.lane("edge", edge).run, stage.lane("hub", hub).run):
        await stage.answered("code 1234?", "edge", session="s", private=True)
        await stage.answered("say it again?", "edge", session="s")
        await stage.answered("and outside?", "hub", session="s")
        await stage.answered("known?", "edge", session="s")
    assert told(hub.calls[0]) == ["and outside?"]
    assert told(edge.calls[1]) == ["code 1234?", "Noted: 1234.", "say it again?"]
    assert told(edge.calls[2])[:2] == ["code 1234?", "Noted: 1234."]
    assert await stage.rows("is_private, saw_private") == [(1, 0), (0, 1), (0, 0), (0, 1)]


async def test_history_leaves_room_in_the_tiers_window(stage: Stage) -> None:
    """`edge` takes 100 characters: 76 with a buffer of 30 %, less 9 of the prompt."""
    edge = ScriptedTier(["a" * 30])
    async with running(stage.lane("edge", edge).run):
        for name in ("a?", "b?", "c?", "d?"):
            await stage.answered(name, "edge", session="s")
    assert [len(told(call)) for call in edge.calls] == [1, 3, 5, 5]
    assert told(edge.calls[3])[0] == "b?"


@pytest.mark.parametrize("off", [{"session_max_turns": 0}, {"session_max_chars": 0}])
async def test_history_can_be_switched_off(stage: Stage, off: dict[str, int]) -> None:
    stage.judge = replace(stage.judge, **off)  # type: ignore[arg-type]
    hub = ScriptedTier(["A."])
    async with running(stage.lane("hub", hub).run):
        await stage.answered("a?", "hub", session="s")
        await stage.answered("b?", "hub", session="s")
    assert told(hub.calls[1]) == ["b?"]


async def test_turn_that_looks_private_stays_here_and_does_not_keep_the_next_question(stage: Stage) -> None:
    """Also one that was asked when nothing was looked for, and one whose answer alone holds such data."""
    edge, hub = ScriptedTier(["Noted."], ["Write to jane.doe@farm.example."]), ScriptedTier(["Yes."])
    stage.judge = replace(stage.judge, privacy=Privacy(detect=frozenset(Kind)))
    async with running(stage.lane("edge", edge).run, stage.lane("hub", hub).run):
        await stage.answered("mail bob@farm.example?", "edge", session="s")
        await stage.answered("whom else?", "edge", session="s")
        await stage.answered("is it wet?", "hub", session="s")
    assert told(hub.calls[0]) == ["is it wet?"]
    assert told(edge.calls[1])[0] == "mail bob@farm.example?"
