"""A tier at a limit of its own: the next one takes over, or the request waits; nothing is lost, and it is explained."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fakes import (
    LIMITS,
    QUEUE,
    START_MS,
    FakeClock,
    FakeInHand,
    FlakyDatabase,
    HashEmbedder,
    ScriptedTier,
    judge,
    request,
    running,
    settled,
    until,
)

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.events import Done
from mqrouter.core.spending import DAY_MS, Meter, TierLimits
from mqrouter.core.states import State
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import ErrorCode, TransientError, UnreachableError
from mqrouter.flow.attempt import AttemptLimits, Attempts
from mqrouter.flow.decide import Decide
from mqrouter.flow.forward import Lane
from mqrouter.flow.metering import Metered
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.upkeep import Upkeep
from mqrouter.flow.wakeup import Wakeup

TO_MIDNIGHT_S = (DAY_MS - START_MS % DAY_MS) / 1000
A_TOKEN_COSTS_1 = {"prompt_price": 1e6, "completion_price": 1e6}
ANSWERS = 8.0
"""What one answer of a scripted tier costs then: 3 tokens read, 5 written."""


class Stage:
    """The hub has limits, the edge has none: deciding, both lanes, over a real store."""

    def __init__(self, database: FlakyDatabase, clock: FakeClock, **limits: Any) -> None:
        self.database, self.clock = database, clock
        self.meter = Meter(TierLimits(**limits))
        self.store = Store(database, Policy(QUEUE, 600_000, 3_600_000), meters={"hub": self.meter})
        breakers = {name: Breaker(3, Backoff(1.0, 60.0)) for name in ("hub", "edge")}
        self.board = TierBoard(breakers, clock, lambda: 0.5, meters={"hub": self.meter})
        self.hub, self.edge = ScriptedTier(["By the hub."]), ScriptedTier(["By the edge."])
        self.accepted, self.answered = Wakeup(), Wakeup()
        self.judge = judge()
        self.embedder = HashEmbedder()
        self.number = 0

    def lane(self, name: str) -> Lane:
        client = self.hub if name == "hub" else self.edge
        limits = AttemptLimits(
            total_timeout_s=60.0,
            is_local=name == "edge",
            logs_text=False,
            max_attempts=4,
            backoff=Backoff(2.0, 300.0),
            request=LIMITS,
        )
        attempts = Attempts(
            name,
            Metered(client, self.meter.call_of) if name == "hub" else client,
            limits,
            self.store,
            self.board,
            self.clock,
            lambda: 0.5,
            judge=lambda: self.judge,
            answered=self.answered,
        )
        return Lane(name, client, attempts, self.store, self.board, self.clock, concurrency=4)

    def decide(self) -> Decide:
        return Decide(
            self.store,
            self.embedder,
            self.judge,
            self.board,
            self.clock,
            LIMITS,
            FakeInHand(),
            accepted=self.accepted,
            answered=self.answered,
        )

    def all(self) -> tuple[Any, ...]:
        return self.decide().run, self.lane("hub").run, self.lane("edge").run

    async def ask(self, number: int = 1, **keys: Any) -> None:
        for _ in range(number):
            self.number += 1
            body = json.dumps({"question": "how are the cows", "id": str(self.number)} | keys)
            await self.store.accept([request(body, now_ms=self.clock.now_ms())], self.clock.now_ms())
        self.accepted.give()

    async def answers(self) -> list[str]:
        found = [json.loads(row.message.payload) for row in await self.store.outbox_after(0, 1000)]
        return [value["answer"] if value["status"] == "ok" else value["error"]["code"] for value in found]

    async def called(self, number: int) -> None:
        await until(lambda: len(self.hub.calls) == number)

    async def answered_all(self, number: int) -> list[str]:
        await until(lambda: self.store.counts.total() == 0)
        await settled(self.database)
        found = await self.answers()
        assert len(found) == number
        return found

    async def decision(self) -> Any:
        query = "SELECT decision FROM requests ORDER BY seq DESC LIMIT 1"
        return json.loads(await self.database.read(lambda db: db.execute(query).fetchone()[0]))

    async def spent(self) -> float:
        return await self.database.read(
            lambda db: db.execute("SELECT coalesce(sum(cost), 0) FROM spending").fetchone()[0]
        )


@pytest.fixture
def anew(database: FlakyDatabase, clock: FakeClock) -> Any:
    return lambda **limits: Stage(database, clock, **limits)


async def test_beyond_its_rate_a_tier_is_passed_over_for_the_next(anew: Any) -> None:
    stage = anew(requests_per_minute=3)
    async with running(*stage.all()):
        await stage.ask(5)
        found = await stage.answered_all(5)
    assert sorted(found) == ["By the edge."] * 2 + ["By the hub."] * 3


async def test_next_tier_takes_over_while_the_first_is_still_busy(anew: Any) -> None:
    stage = anew(requests_per_minute=1)
    gate = asyncio.Event()
    stage.hub.then([gate, "By the hub."])
    await stage.ask(2)
    async with running(stage.decide().run):
        await until(lambda: stage.store.counts[State.PENDING] == 2)
    async with running(stage.lane("hub").run, stage.lane("edge").run):
        await until(lambda: stage.edge.calls)
        assert stage.hub.at_once == 1
        gate.set()
        await stage.answered_all(2)


async def test_without_another_tier_requests_wait_for_room_and_none_is_lost(anew: Any) -> None:
    stage = anew(requests_per_minute=2)
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        await stage.ask(5)
        for minute, calls in enumerate((2, 4, 5)):
            await stage.called(calls)
            await settled(stage.database)
            assert len(stage.hub.calls) == calls, minute
            stage.clock.advance(59.9)
            await settled(stage.database)
            assert len(stage.hub.calls) == calls, minute
            stage.clock.advance(0.2)
        assert await stage.answered_all(5) == ["By the hub."] * 5


async def test_tokens_of_a_minute_are_those_that_the_tier_counted(anew: Any) -> None:
    stage = anew(tokens_per_minute=20, max_tokens=4)
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        for number in (1, 2, 3):
            await stage.ask()
            await stage.called(number)
            await until(lambda: stage.store.counts.total() == 0)
        await stage.ask()  # three answers of 8 tokens are more than 20
        await settled(stage.database)
        assert len(stage.hub.calls) == 3
        stage.clock.advance(60.1)
        await stage.answered_all(4)


async def test_tier_without_money_is_struck_out_until_midnight(anew: Any) -> None:
    stage = anew(budget_per_day=2 * ANSWERS, **A_TOKEN_COSTS_1)
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        for number in (1, 2):
            await stage.ask()
            await stage.answered_all(number)
        await stage.ask(ttl_s=7200)
        for _ in range(10):
            stage.clock.advance((TO_MIDNIGHT_S - 1) / 10)
            await settled(stage.database)
        assert (len(stage.hub.calls), stage.store.counts[State.PENDING]) == (2, 1)
        stage.clock.advance(61.0)  # a lane looks once a minute: the machine may have slept
        await stage.answered_all(3)
    assert await stage.spent() == 3 * ANSWERS


async def test_limit_is_part_of_the_explanation(anew: Any) -> None:
    stage = anew(budget_per_day=1.0, **A_TOKEN_COSTS_1)
    async with running(*stage.all()):
        await stage.ask()
        await stage.answered_all(1)
        await stage.ask()
        assert (await stage.answered_all(2))[1] == "By the edge."
    decision = await stage.decision()
    midnight_ms = START_MS + int(1000 * TO_MIDNIGHT_S)
    reason = "budget per day: 8 of 1 taken"
    assert decision["struck"] == [{"tier": "hub", "reason": reason, "until_ms": midnight_ms}]
    assert decision["tiers"] == ["hub", "edge"]  # it keeps its place for when the day is over
    signal = stage.board.signals()["hub"]
    assert (signal.is_up, signal.over.reason) == (False, reason)


@pytest.mark.parametrize(
    ("when_offline", "answer"),
    [("reject", ErrorCode.OFFLINE_REJECTED), ("answer_locally", "By the edge."), ("queue", None)],
)
async def test_request_whose_only_tier_has_no_money_ends_as_when_it_is_down(
    anew: Any, when_offline: str, answer: str | None
) -> None:
    stage = anew(budget_per_day=0.0, **A_TOKEN_COSTS_1)
    stage.judge = judge(to=["hub"], when_offline=when_offline)
    async with running(*stage.all()):
        await stage.ask()
        if answer is not None:
            assert await stage.answered_all(1) == [answer]
        else:
            await until(lambda: stage.store.counts[State.PENDING] == 1)
            await settled(stage.database)
    assert (stage.hub.calls, await stage.answers()) == ([], [] if answer is None else [answer])


async def test_sender_is_told_which_limit_it_was(anew: Any) -> None:
    stage = anew(budget_per_month=0.0, **A_TOKEN_COSTS_1)
    stage.judge = judge(to=["hub"], when_offline="reject")
    async with running(*stage.all()):
        await stage.ask()
        await stage.answered_all(1)
    (row,) = await stage.store.outbox_after(0, 1)
    message = json.loads(row.message.payload)["error"]["message"]
    assert message == "none of hub can be reached (hub is at its limit, budget per month: 0 of 0 taken)"


async def test_those_who_may_not_wait_are_told_when_the_money_runs_out(anew: Any) -> None:
    stage = anew(budget_per_day=1.0, max_tokens=1, **A_TOKEN_COSTS_1)
    stage.judge = judge(to=["hub"], when_offline="reject")
    gate = asyncio.Event()
    stage.hub.then([gate, "By the hub."])
    upkeep = Upkeep(
        stage.store,
        stage.board,
        stage.clock,
        backoff=Backoff(1.0, 2.0),
        retain_finished_s=1e6,
        retain_refused_s=1e6,
        judge=lambda: stage.judge,
        machine=lambda: None,  # type: ignore[arg-type, return-value]
        answered=stage.answered,
    )
    await stage.ask()
    async with running(stage.decide().run, stage.lane("hub").run):
        await until(lambda: stage.hub.at_once)
        await stage.ask()
        await until(lambda: stage.store.counts.total() == 1)
        gate.set()
        await stage.answered_all(2)
        await upkeep._end_what_may_not_wait(stage.clock.now_ms())
    assert sorted(await stage.answers()) == ["By the hub.", "offline_rejected"]


async def test_private_request_still_goes_to_its_trusted_tier_when_another_is_out_of_money(anew: Any) -> None:
    stage = anew(budget_per_day=0.0, **A_TOKEN_COSTS_1)
    async with running(*stage.all()):
        await stage.ask(private=True)
        assert await stage.answered_all(1) == ["By the edge."]
    assert [struck["reason"] for struck in (await stage.decision())["struck"]] == ["private: the tier is not trusted"]


# --- what counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "cost"),
    [
        (["Four", Done("stop", "m", 10, 20)], 30.0),
        (["Four", Done("stop", "m", 0, 0)], 9.0 + 2.0),  # it says nothing: estimated from what was said
        (["Four", TransientError("broke off")], 9.0 + 2.0),
        ([TransientError("HTTP 500")], 0.0),
        ([" ", Done("stop", "m", 10, 20)], 30.0),  # unfit to send, and paid for
        (UnreachableError("refused"), 0.0),
    ],
)
async def test_attempt_costs_what_it_used(anew: Any, script: Any, cost: float) -> None:
    stage = anew(requests_per_minute=9, **A_TOKEN_COSTS_1)
    stage.hub.then(script)
    async with running(*stage.all()):
        await stage.ask()
        await stage.answered_all(1)
    assert await stage.spent() == cost
    is_counted = not isinstance(script, UnreachableError)
    assert stage.meter.allowance(stage.clock.now_ms()).requests == 9 - is_counted


async def test_attempt_cut_off_by_its_limit_costs_the_question(anew: Any) -> None:
    stage = anew(**A_TOKEN_COSTS_1)
    stage.hub.then([asyncio.Event()])
    async with running(*stage.all()):
        await stage.ask()
        await until(lambda: stage.hub.at_once)
        stage.clock.advance(60.1)
        assert await stage.answered_all(1) == ["By the edge."]
    assert await stage.spent() == 9.0  # (16 + 9 characters with the prompt) / 4 * 1.3, rounded up


async def test_many_at_once_pass_the_budget_by_what_one_may_cost(anew: Any) -> None:
    """The estimate holds the others back: without it all four of the lane would begin."""
    stage = anew(budget_per_day=50.0, max_tokens=40, **A_TOKEN_COSTS_1)
    gate = asyncio.Event()
    stage.hub.then([gate, "Yes.", Done("stop", "m", 3, 40)])
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        await stage.ask(6)
        await until(lambda: stage.hub.at_once)
        await settled(stage.database)
        assert stage.hub.at_once == 1  # expected to cost more than 50 with its question: no second begins
        gate.set()
        await until(lambda: len(stage.hub.calls) == 2)
        await settled(stage.database)
    assert (len(stage.hub.calls), await stage.spent()) == (2, 86.0)
