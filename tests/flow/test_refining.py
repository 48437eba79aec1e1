"""A provisional answer now, and a better one later in its place."""

from __future__ import annotations

import json

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, cancel, judge, request, running, until
from tier_stage import DOWN, Stage, with_provisional

from mqrouter.core.events import Done
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import ErrorCode, ModelError


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


@pytest.fixture
def refining(stage: Stage) -> Stage:
    stage.judge = judge(when_offline="answer_then_refine")
    return stage


async def test_provisional_answer_comes_first_and_the_better_one_takes_its_place(refining: Stage) -> None:
    stage, hub, edge = refining, ScriptedTier(DOWN, ["Surely."], probes=[False]), ScriptedTier(["Maybe."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.ask("a?", "hub", "edge", accept_provisional=True)
        await until(lambda: edge.calls and stage.store.counts[State.PENDING] == 1)
        await stage.idle()
        (first,) = await stage.store.outbox_after(0, 9)
        assert first.is_provisional
        body = json.loads(first.message.payload)
        assert (body["answer"], body["provisional"], body["tier"]) == ("Maybe.", True, "edge")
        assert await stage.rows("state, tiers, todo, attempts") == [("pending", "hub", "hub", 0)]
        hub._probes = [True]
        stage.clock.advance(5.0)
        stage.board.wake_all()
        await until(lambda: stage.store.counts.total() == 0)
    (last,) = await stage.store.outbox_after(first.seq, 9)
    body = json.loads(last.message.payload)
    assert (body["answer"], body["provisional"], body["refined"], body["tier"]) == ("Surely.", False, True, "hub")
    assert last.message.correlation == first.message.correlation
    await stage.store.delivered(first, stage.clock.now_ms())  # its PUBACK comes late
    assert await stage.rows("state") == [("answered",)]
    await stage.store.delivered(last, stage.clock.now_ms())
    assert await stage.rows("state, tier") == [("delivered", "hub")]


async def test_who_accepts_none_gets_none(refining: Stage) -> None:
    stage, hub, edge = refining, ScriptedTier(DOWN, probes=[False]), ScriptedTier(["Maybe."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.answered("a?", "hub", "edge")
    (body,) = await stage.answers()
    assert (body["provisional"], body["tier"]) == (False, "edge")
    assert "refined" not in body


async def test_answer_of_the_first_choice_is_no_provisional_one(refining: Stage) -> None:
    async with running(refining.lane("edge", ScriptedTier(["Yes."])).run):
        await refining.answered("a?", "edge", "hub", accept_provisional=True)
    (body,) = await refining.answers()
    assert (body["provisional"], body["answer"]) == (False, "Yes.")


async def test_truncated_provisional_answer_is_better_than_none(refining: Stage) -> None:
    cut = ScriptedTier(["Maybe", Done("length", "scripted", 3, 5)])
    async with running(refining.lane("hub", ScriptedTier(DOWN, probes=[False])).run, refining.lane("edge", cut).run):
        await refining.ask("a?", "hub", "edge", accept_provisional=True)
        await until(lambda: cut.calls and refining.store.counts[State.PENDING] == 1)
        await refining.idle()
    (body,) = await refining.answers()
    assert (body["provisional"], body["truncated"]) == (True, True)


async def test_unfit_provisional_answer_is_not_sent(refining: Stage) -> None:
    stage, hub = refining, ScriptedTier(DOWN, probes=[False])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", ScriptedTier(ModelError("crashed"))).run):
        await stage.ask("a?", "hub", "edge", accept_provisional=True)
        await until(lambda: hub.calls and stage.store.counts[State.PENDING] == 1)
        await stage.idle()
    assert await stage.answers() == []
    assert await stage.rows("state, tiers") == [("pending", "hub")]


@pytest.mark.parametrize("code", [ErrorCode.EXPIRED, ErrorCode.UPSTREAM_FAILED, ErrorCode.QUEUE_FULL])
@pytest.mark.parametrize("max_bytes", [None, 129])
async def test_provisional_answer_stands_where_no_better_one_comes(
    refining: Stage, code: ErrorCode, max_bytes: int | None
) -> None:
    stage = refining
    await with_provisional(stage, **({"max_bytes": max_bytes + 1} if max_bytes else {}))
    (row,) = await stage.store.expired(stage.clock.now_ms() + 10**9)
    answer = Answer(error=code, error_message="none came", latency_ms=77)
    assert await stage.store.finish(row, answer, State.EXPIRED, stage.clock.now_ms())
    (body,) = await stage.answers()
    assert (body["answer"], body["refined"], body["status"]) == ("Maybe.", False, "ok")
    assert body.get("provisional", False) is False
    assert await stage.rows("state, reason, detail, tier, model") == [
        ("answered", None, "none came", "edge", "scripted")
    ]


async def test_cancelled_request_says_so_all_the_same(refining: Stage) -> None:
    await with_provisional(refining)
    ((request_id,),) = await refining.rows("id")
    await cancel(refining.store, request_id, refining.clock.now_ms())
    (body,) = await refining.answers()
    assert body["error"]["code"] == "cancelled"


async def test_repeated_question_gets_the_provisional_answer_again(refining: Stage) -> None:
    stage = refining
    await with_provisional(stage)
    (first,) = await stage.store.outbox_after(0, 9)
    await stage.store.delivered(first, stage.clock.now_ms())
    assert await stage.answers() == []
    payload = json.dumps({"question": "a?", "id": "a?", "accept_provisional": True})
    await stage.store.accept([request(payload, topic="mqrouter/farm/ask/d1/7")], stage.clock.now_ms())
    (again,) = await stage.store.outbox_after(first.seq, 9)
    assert (again.message, again.is_provisional) == (first.message, True)
    assert await stage.rows("state") == [("pending",)]


async def test_provisional_answer_that_nobody_took_leaves_its_request_open(refining: Stage) -> None:
    await with_provisional(refining)
    (first,) = await refining.store.outbox_after(0, 9)
    now_ms = refining.clock.now_ms()
    await refining.store.not_taken(first, "no_subscriber", now_ms + 5, now_ms)
    assert await refining.store.give_up_answers(now_ms + 10**9) == 1
    assert await refining.rows("state, finished_at_ms") == [("pending", None)]
