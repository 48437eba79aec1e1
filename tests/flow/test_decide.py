"""Every received request gets a place in the queue or an answer; nothing stops the stage but a failed disk."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fakes import (
    LIMITS,
    PREFIX,
    START_MS,
    TOPICS,
    FakeClock,
    FakeInHand,
    FlakyDatabase,
    HashEmbedder,
    judge,
    request,
    running,
    settled,
    until,
)

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.load import TierLoad
from mqrouter.core.states import State
from mqrouter.core.topics import TopicMap
from mqrouter.edge.store.store import Store
from mqrouter.errors import MqrouterError, StoreError, StoreFatalError
from mqrouter.flow.decide import MAX_DECIDING, Decide
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup
from mqrouter.routing.signals import Embedding


@dataclass
class Overload:
    """Counts how often it was asked."""

    board: TierBoard
    wait_s: float
    asked: int = 0

    async def refresh(self) -> None:
        self.asked += 1
        self.board.loads = {"hub": TierLoad(self.wait_s, 1.0, 30.0), "edge": TierLoad(0.0, 1.0, None)}


class Stage:
    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.board = TierBoard({name: Breaker(2, Backoff(1.0, 60.0)) for name in ("hub", "edge")}, clock, lambda: 0.0)
        self.embedder = HashEmbedder()
        self.accepted = Wakeup()
        self.in_hand = FakeInHand()
        self.decide = self.with_judge(judge())

    def with_judge(self, judge: Judge, topics: TopicMap = TOPICS, **more: Any) -> Decide:
        self.decide = Decide(
            self.store,
            self.embedder,
            judge,
            self.board,
            self.clock,
            LIMITS,
            self.in_hand,
            accepted=self.accepted,
            answered=Wakeup(),
            topics=topics,
            **more,
        )
        return self.decide

    async def ask(self, *payloads: str, **more: Any) -> None:
        items = [request(payload, correlation=payload.encode(), **more) for payload in payloads]
        await self.store.accept(items, START_MS)
        self.accepted.give()

    async def rows(self, columns: str) -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM requests ORDER BY seq"
        return await self.database.read(lambda db: [tuple(row) for row in db.execute(query)])

    async def answers(self) -> list[bytes]:
        return [row.message.payload for row in await self.store.outbox_after(0, 100)]

    async def decided(self) -> None:
        await until(lambda: self.store.counts[State.RECEIVED] == 0)


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_request_is_queued_with_its_explanation(stage: Stage) -> None:
    await stage.ask("how are the cows doing")
    async with running(stage.decide.run):
        await stage.decided()
    ((state, route, tiers, todo, decision),) = await stage.rows("state, route, tiers, todo, decision")
    assert (state, route, tiers, todo) == ("pending", "cattle", "hub>edge", "hub>edge")
    assert json.loads(decision)["reason"] == "above_threshold"
    assert stage.board.wakeups["hub"]._event.is_set()


async def test_requests_that_arrive_later_are_decided_too(stage: Stage) -> None:
    async with running(stage.decide.run):
        for text in ("how are the cows", "will it rain today"):
            await stage.ask(text)
            await stage.decided()
    assert [route for (route,) in await stage.rows("route")] == ["cattle", "weather"]


async def test_more_than_fit_at_once_are_all_decided_by_priority(stage: Stage) -> None:
    payloads = [json.dumps({"question": f"cows {n}", "priority": n % 10}) for n in range(3 * MAX_DECIDING)]
    await stage.ask(*payloads)
    async with running(stage.decide.run):
        await stage.decided()
    first = stage.embedder.texts[:MAX_DECIDING]
    assert all(int(text.split()[1]) % 10 >= 6 for text in first)


async def test_abstaining_is_counted_and_answered(stage: Stage) -> None:
    stage.with_judge(judge(abstain=RoutePlan((), "queue", None)))
    await stage.ask("zzz")
    async with running(stage.decide.run):
        await stage.decided()
    assert stage.decide.abstained == 1
    assert await stage.answers() == [b"error no_route: no route claims this question"]
    ((state, reason, decision),) = await stage.rows("state, reason, decision")
    assert (state, reason, json.loads(decision)["route"]) == ("answered", "no_route", None)


async def test_private_question_that_only_strangers_could_answer_is_refused(stage: Stage) -> None:
    stage.with_judge(judge(to=["hub"]))
    await stage.ask('{"question": "how are the cows", "private": true}')
    async with running(stage.decide.run):
        await stage.decided()
    (answer,) = await stage.answers()
    assert json.loads(answer)["error"]["code"] == "private_unanswerable"


@pytest.mark.parametrize(
    ("when_offline", "code"), [("reject", b"offline_rejected"), ("answer_locally", b"upstream_failed")]
)
async def test_route_that_does_not_queue_says_so_only_when_nothing_is_up(
    stage: Stage, when_offline: str, code: bytes
) -> None:
    stage.with_judge(judge(to=["edge"], when_offline=when_offline))
    async with running(stage.decide.run):
        await stage.ask("how are the cows")
        await stage.decided()
        await settled(stage.database)
        stage.board.unreachable("edge", "down")
        await stage.ask("how are the cows today")
        await until(lambda: stage.store.counts.total() == 1)
    assert [state for (state,) in await stage.rows("state")] == ["pending", "answered"]
    assert await stage.answers() == [b"error %s: none of edge can be reached" % code]


async def test_questions_of_a_paused_route_wait_whatever_it_does_offline(stage: Stage) -> None:
    stage.with_judge(judge(to=["edge"], when_offline="reject"))
    stage.board.unreachable("edge", "down")
    await stage.store.pause_route("cattle", "me", START_MS)
    async with running(stage.decide.run):
        await stage.ask("how are the cows")
        await stage.decided()
        await settled(stage.database)
    assert await stage.rows("state, route") == [("pending", "cattle")]
    assert await stage.store.claim("edge", ["edge"], 1, START_MS) == []


@pytest.mark.parametrize("error", [MqrouterError("the model failed"), ZeroDivisionError("a bug")])
async def test_question_that_breaks_the_embedder_is_answered_and_others_go_on(stage: Stage, error: Exception) -> None:
    stage.embedder.error = error
    async with running(stage.decide.run):
        await stage.ask("how are the cows")
        await stage.decided()
        stage.embedder.error = None
        await stage.ask("will it rain today")
        await stage.decided()
    assert await stage.answers() == [b"error internal: the question could not be classified"]
    assert [state for (state,) in await stage.rows("state")] == ["answered", "pending"]


@pytest.mark.parametrize("payload", ["how are the cows", '{"question": "cows", "route": "gone"}'])
async def test_decision_is_made_again_once_the_store_works(stage: Stage, payload: str) -> None:
    await stage.ask(payload)
    stage.database.error = StoreError("the disk is full")
    async with running(stage.decide.run):
        for tries in (1, 2):
            await until(lambda tries=tries: stage.database.refused == tries)  # type: ignore[misc]
            await settled(stage.database)
            assert stage.database.refused == tries  # it waits, and does not hammer
            stage.clock.advance(1.01)
        stage.database.error = None
        stage.clock.advance(1.01)
        await stage.decided()


async def test_failed_disk_ends_the_stage(stage: Stage) -> None:
    await stage.ask("how are the cows")
    stage.database.error = StoreFatalError("fsync failed")
    task = asyncio.create_task(stage.decide.run())
    await until(task.done)
    with pytest.raises(BaseExceptionGroup) as caught:
        task.result()
    assert caught.group_contains(StoreFatalError)


async def test_expired_request_is_answered_and_not_classified(stage: Stage) -> None:
    await stage.ask("how are the cows", expiry_s=10)
    stage.clock.advance(10.0)
    async with running(stage.decide.run):
        await stage.decided()
    assert stage.embedder.texts == []
    assert [state for (state,) in await stage.rows("state")] == ["expired"]
    assert (await stage.answers())[0].startswith(b"error expired")


# --- strategies and sessions ------------------------------------------------------------------------


def asked(question: str, session: str | None = None, **more: Any) -> str:
    return json.dumps({"question": question, **more} | ({} if session is None else {"session": session}))


async def test_listener_decides_by_its_own_strategy(stage: Stage) -> None:
    own = TOPICS.rules[0]
    stage.decide = stage.with_judge(judge(), topics=replace(TOPICS, rules=(replace(own, strategy="knn"),)))
    await stage.ask("how are the cows", asked("how are the cows now", strategy="token"))
    async with running(stage.decide.run):
        await stage.decided()
    assert await stage.rows("strategy") == [("knn",), ("token",)]


async def test_question_inherits_the_route_of_its_session_and_names_the_request(stage: Stage) -> None:
    await stage.ask(asked("how are the cows", "s"), asked("why?", "s"))
    async with running(stage.decide.run):
        await stage.decided()
    (first, *_), (_, route, decision) = await stage.rows("id, route, decision")
    assert (route, json.loads(decision)["reason"], json.loads(decision)["inherited_from"]) == (
        "cattle",
        "session",
        first,
    )


async def test_without_a_session_or_in_another_one_it_abstains(stage: Stage) -> None:
    await stage.ask(asked("how are the cows", "s"), asked("why?"), asked("why?", "t"))
    await stage.ask(asked("why?", "s", id=1), topic=f"{PREFIX}/ask/d2")
    async with running(stage.decide.run):
        await stage.decided()
    assert [route for (route,) in await stage.rows("route")] == ["cattle", None, None, None]


async def test_session_that_is_over_passes_nothing_on(stage: Stage) -> None:
    await stage.ask(asked("how are the cows", "s"))
    await stage.ask(asked("why?", "s"), now_ms=START_MS + 1_800_000)
    await stage.ask(asked("why? why?", "s"), now_ms=START_MS + 3_600_001)
    async with running(stage.decide.run):
        await stage.decided()
    assert [route for (route,) in await stage.rows("route")] == ["cattle", "cattle", None]


async def test_requests_of_a_session_are_decided_one_after_the_other(stage: Stage) -> None:
    """The embedder is slow with the first: the second, which leans on it, must not overtake it."""
    go_on, embed = asyncio.Event(), stage.embedder.embed

    async def slowly(text: str) -> Embedding:
        if "cows" in text:
            await go_on.wait()
        return await embed(text)

    stage.embedder.embed = slowly  # type: ignore[method-assign]
    await stage.ask(asked("how are the cows", "s"), asked("why?", "s"), asked("will it rain today", "t"))
    async with running(stage.decide.run):
        await until(lambda: stage.embedder.texts == ["will it rain today"])
        await settled(stage.database)
        assert stage.embedder.texts == ["will it rain today"]
        go_on.set()
        await stage.decided()
        await settled(stage.database)
    assert [route for (route,) in await stage.rows("route")] == ["cattle", "cattle", "weather"]
    assert stage.decide._latest_of == {}


async def test_health_of_the_tiers_reaches_the_strategy(stage: Stage) -> None:
    stage.board.answered("hub", 2_000.0)
    await stage.ask(asked("how are the cows", strategy="perf"))
    async with running(stage.decide.run):
        await stage.decided()
    assert await stage.rows("confidence") == [(0.5,)]


async def test_strategy_that_needs_a_head_is_refused_without_one(stage: Stage) -> None:
    await stage.ask(asked("how are the cows", strategy="learned"))
    async with running(stage.decide.run):
        await stage.decided()
    (answer,) = map(json.loads, await stage.answers())
    assert answer["error"]["code"] == "bad_request"
    assert "mqrouter train" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("wait_s", "ttl_s", "tiers", "busy"),
    [
        (29.0, 600, "hub>edge", []),
        (31.0, 600, "edge>hub", [{"tier": "hub", "wait_s": 31.0, "limit_s": 30.0}]),
        (9.5, 10, "edge>hub", [{"tier": "hub", "wait_s": 9.5, "limit_s": 9.0}]),
    ],
)
async def test_tier_that_would_be_too_late_goes_last_and_that_is_explained(
    stage: Stage, wait_s: float, ttl_s: int, tiers: str, busy: list[dict[str, Any]]
) -> None:
    overload = Overload(stage.board, wait_s)
    decide = stage.with_judge(judge(), refresh_load=overload.refresh)
    async with running(decide.run):
        await stage.ask(json.dumps({"question": "how are the cows", "ttl_s": ttl_s}))
        await until(lambda: stage.store.counts[State.PENDING] == 1)
    ((found, decision),) = await stage.rows("tiers, decision")
    assert (found, json.loads(decision)["too_busy"]) == (tiers, busy)
    assert json.loads(decision)["tiers"] == tiers.split(">")
    assert overload.asked == 1
