"""One answer for a backlog of one question, where that is switched on, and only where it is one question."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import QUEUE, FakeClock, FlakyDatabase, ScriptedTier, judge, request, running, settled, until
from test_limits import Stage

from mqrouter.core.breaker import BreakerState
from mqrouter.core.events import Done
from mqrouter.core.policy import TierFacts
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import UnreachableError

WINDOW_S = 600
ASKED = "how are the cows"


class Backlog(Stage):
    """The hub is down; what is asked waits for it."""

    def __init__(self, database: FlakyDatabase, clock: FakeClock, window_s: int | None) -> None:
        super().__init__(database, clock)
        window_ms = None if window_s is None else 1000 * window_s
        self.store = Store(database, Policy(QUEUE, 600_000, 3_600_000, share_window_ms=window_ms))
        self.hub = ScriptedTier(UnreachableError("refused"), probes=[False])

    async def put(self, device: str = "d1", question: str = ASKED, **keys: Any) -> None:
        self.number += 1
        body = json.dumps({"question": question, "id": str(self.number)} | keys)
        item = request(body, topic=f"mqrouter/farm/ask/{device}", now_ms=self.clock.now_ms())
        await self.store.accept([item], self.clock.now_ms())
        self.accepted.give()
        await until(lambda: self.store.counts[State.RECEIVED] == 0)
        await until(lambda: self.board.breakers["hub"].state is not BreakerState.CLOSED)

    async def back(self, *script: Any) -> None:
        """The hub is up again."""
        self.hub.calls.clear()
        self.hub.then(list(script) or ["Fine."])
        self.hub._probes = [True]
        self.clock.advance(60.1)  # the longest pause between two probes

    async def found(self, number: int) -> list[dict[str, Any]]:
        await until(lambda: self.store.counts.total() == 0)
        await settled(self.database)
        found = [json.loads(row.message.payload) for row in await self.store.outbox_after(0, 100)]
        assert len(found) == number
        return found


@pytest.fixture
def backlog(database: FlakyDatabase, clock: FakeClock) -> Backlog:
    return Backlog(database, clock, WINDOW_S)


async def test_backlog_of_one_question_is_answered_by_one_call(backlog: Backlog) -> None:
    async with running(backlog.decide().run, backlog.lane("hub").run):
        for device in ("d1", "d1", "d2", "d3"):
            await backlog.put(device, to="x")
        await backlog.put("d1", "is the cow ill", to="x")
        await backlog.back()
        found = await backlog.found(5)
    assert sorted(call.messages[-1].content for call in backlog.hub.calls) == [ASKED, "is the cow ill"]
    assert [value["answer"] for value in found] == ["Fine."] * 5
    assert sorted(value["cached"] for value in found) == [False, False, True, True, True]
    assert {value["id"] for value in found} == {"1", "2", "3", "4", "5"}
    shared = next(value for value in found if value["cached"])
    assert (shared["tier"], shared["model"], shared["route"], shared["usage"]) == ("hub", "scripted", "cattle", {})
    query = "SELECT count(*) FROM history WHERE event = 'shared' AND note LIKE 'the answer to request r%'"
    assert await backlog.database.read(lambda db: db.execute(query).fetchone()[0]) == 3


@pytest.mark.parametrize(
    ("other", "calls"),
    [
        ({}, 1),
        ({"priority": 9}, 1),
        ({"context": "barn 2"}, 2),
        ({"max_bytes": 400}, 2),
        ({"session": "s"}, 2),
        ({"question": "how are the cows?"}, 2),
        ({"device": "d2"}, 1),
    ],
)
async def test_answer_is_shared_only_where_the_question_is_the_same(
    backlog: Backlog, other: dict[str, Any], calls: int
) -> None:
    async with running(backlog.decide().run, backlog.lane("hub").run):
        await backlog.put()
        await backlog.put(**other)
        await backlog.back()
        await backlog.found(2)
    assert len(backlog.hub.calls) == calls


@pytest.mark.parametrize(("device", "calls"), [("d1", 1), ("d2", 2)])
async def test_private_answer_is_shared_within_its_device(backlog: Backlog, device: str, calls: int) -> None:
    hub = TierFacts("hub", is_local=False, is_trusted=True, context_chars=500)
    edge = TierFacts("edge", is_local=True, is_trusted=True, context_chars=100)
    backlog.judge = judge(tiers={"hub": hub, "edge": edge})
    async with running(backlog.decide().run, backlog.lane("hub").run):
        await backlog.put("d1", private=True)
        await backlog.put(device, private=True)
        await backlog.back()
        await backlog.found(2)
    assert len(backlog.hub.calls) == calls


async def test_questions_too_far_apart_are_asked_each(backlog: Backlog) -> None:
    async with running(backlog.decide().run, backlog.lane("hub").run):
        await backlog.put()
        backlog.clock.advance(WINDOW_S + 1)
        await settled(backlog.database)
        await backlog.put()
        await backlog.back()
        found = await backlog.found(2)
    assert [value["cached"] for value in found] == [False, False]


async def test_truncated_answer_is_nobody_elses(backlog: Backlog) -> None:
    async with running(backlog.decide().run, backlog.lane("hub").run):
        await backlog.put()
        await backlog.put()
        await backlog.back("Half an", Done("length", "scripted", 3, 5))
        found = await backlog.found(2)
    assert [value["cached"] for value in found] == [False, False]


async def test_answer_of_a_lesser_tier_is_not_shared_with_those_that_wait_for_a_better(backlog: Backlog) -> None:
    async with running(backlog.decide().run):
        await backlog.ask(2)
        await until(lambda: backlog.store.counts[State.PENDING] == 2)
    now_ms = backlog.clock.now_ms()
    (held,) = await backlog.store.claim("edge", ["hub>edge"], 1, now_ms)
    await backlog.store.finish(held, Answer(text="Fine.", tier="edge"), State.ANSWERED, now_ms, lease=held.lease)
    assert backlog.store.counts[State.PENDING] == 1


async def test_switched_off_each_question_is_asked(database: FlakyDatabase, clock: FakeClock) -> None:
    backlog = Backlog(database, clock, None)
    async with running(backlog.decide().run, backlog.lane("hub").run):
        await backlog.put()
        await backlog.put()
        await backlog.back()
        found = await backlog.found(2)
    assert (len(backlog.hub.calls), [value["cached"] for value in found]) == (2, [False, False])


async def test_what_is_held_adds_up_after_sharing(backlog: Backlog) -> None:
    async with running(backlog.decide().run, backlog.lane("hub").run):
        for device in ("d1", "d2", "d2"):
            await backlog.put(device)
        await backlog.back()
        await backlog.found(3)
    holdings = backlog.store.holdings
    assert (holdings.total.requests, holdings.total.bytes, dict(holdings.devices)) == (0, 0, {})
