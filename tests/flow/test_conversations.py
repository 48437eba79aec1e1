"""Sessions that go on across tiers, and provisional answers that a better one follows: lanes over a real store."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from fakes import LIMITS, TOPICS, FakeClock, FlakyDatabase, ScriptedTier, judge, request, running, settled, until

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.events import Done, TierCall
from mqrouter.core.request import Answer, OutMessage
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import ErrorCode, ModelError, PermanentError, TransientError, UnreachableError
from mqrouter.flow.attempt import AttemptLimits, Attempts
from mqrouter.flow.forward import Lane
from mqrouter.flow.judge import Judge
from mqrouter.flow.progress import Progress
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

DOWN = UnreachableError("refused")


class Announced:
    """What was said at QoS 0."""

    def __init__(self) -> None:
        self.messages: list[OutMessage] = []

    def announce(self, message: OutMessage) -> bool:
        self.messages.append(message)
        return True

    @property
    def told(self) -> list[tuple[int, int, str]]:
        """(attempt, number, text) of each."""
        bodies = [json.loads(message.payload) for message in self.messages]
        return [(body["attempt"], body["seq"], body["text"]) for body in bodies]


class Stage:
    """`hub` upstream and not trusted, `edge` on this device."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.board = TierBoard({n: Breaker(3, Backoff(1.0, 60.0)) for n in ("hub", "edge")}, clock, lambda: 0.5)
        self.judge: Judge = judge()
        self.announced = Announced()

    def lane(self, name: str, client: ScriptedTier) -> Lane:
        limits = AttemptLimits(
            total_timeout_s=60.0,
            is_local=name == "edge",
            is_trusted=name == "edge",
            logs_text=False,
            max_attempts=4,
            backoff=Backoff(2.0, 300.0),
            request=LIMITS,
        )
        attempts = Attempts(
            name,
            client,
            limits,
            self.store,
            self.board,
            self.clock,
            lambda: 0.5,
            judge=lambda: self.judge,
            answered=Wakeup(),
            progress=Progress(self.announced, TOPICS, 0.25),
        )
        return Lane(name, client, attempts, self.store, self.board, self.clock, concurrency=1)

    async def ask(self, question: str, *tiers: str, device: str = "d1", **fields: Any) -> None:
        payload = json.dumps({"question": question, "id": question, **fields})
        item = request(payload, topic=f"mqrouter/farm/ask/{device}/7", now_ms=self.clock.now_ms())
        await self.store.accept([item], self.clock.now_ms())
        (row,) = await self.store.next_received(1, ())
        await self.store.queue_for_tiers(
            row, tiers, route="cattle", confidence=0.5, decision={}, now_ms=self.clock.now_ms()
        )
        self.board.wake_for(tiers)

    async def answered(self, question: str, *tiers: str, **fields: Any) -> None:
        await self.ask(question, *tiers, **fields)
        await until(lambda: self.store.counts.total() == 0)

    async def answers(self) -> list[dict[str, Any]]:
        return [json.loads(row.message.payload) for row in await self.store.outbox_after(0, 100)]

    async def rows(self, columns: str) -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM requests ORDER BY seq"
        return await self.database.read(lambda db: [tuple(row) for row in db.execute(query)])

    async def idle(self) -> None:
        await settled(self.database)


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


def told(call: TierCall) -> list[str]:
    """What the tier was sent, less the system message."""
    return [message.content for message in call.messages if message.role != "system"]


# --- sessions ---------------------------------------------------------------------------------------


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


# --- answer_then_refine -----------------------------------------------------------------------------


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


async def with_provisional(stage: Stage, **fields: Any) -> None:
    async with running(
        stage.lane("hub", ScriptedTier(DOWN, probes=[False])).run, stage.lane("edge", ScriptedTier(["Maybe."])).run
    ):
        await stage.ask("a?", "hub", "edge", accept_provisional=True, **fields)
        await until(lambda: stage.store.counts[State.PENDING] == 1 and stage.store.counts[State.LEASED] == 0)
        while not await stage.answers():
            await stage.idle()


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
    await refining.store.cancel(request_id, Answer(error=ErrorCode.CANCELLED), "me", refining.clock.now_ms())
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


# --- progress ---------------------------------------------------------------------------------------


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
