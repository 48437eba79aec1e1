"""One lane per tier: what it takes, what it makes of each way an attempt can end, and how it comes back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from fakes import (
    LIMITS,
    START_MS,
    FakeClock,
    FlakyDatabase,
    Script,
    ScriptedTier,
    judge,
    request,
    running,
    settled,
    until,
)

from mqrouter.core.answer_signals import Evidence, Judged, parse_judged
from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker, BreakerState
from mqrouter.core.events import Done
from mqrouter.core.load import Capacity
from mqrouter.core.request import Message
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import (
    CredentialsError,
    ModelError,
    PermanentError,
    StoreError,
    StoreFatalError,
    TransientError,
    UnreachableError,
)
from mqrouter.flow.attempt import AttemptLimits, Attempts
from mqrouter.flow.forward import Lane, nothing_to_refresh
from mqrouter.flow.load import REFRESH_S, Load
from mqrouter.flow.local_answer import LocalRules
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup
from mqrouter.routing.answer_confidence import AnswerCalibration
from mqrouter.routing.calibration import Platt

LENGTH = Done("length", "scripted", 3, 5)
LOOP = "and so on and so forth " * 20


class Stage:
    """Two tiers, `hub` upstream and `edge` local, over a real store."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        breakers = {name: Breaker(3, Backoff(1.0, 60.0)) for name in ("hub", "edge")}
        self.board = TierBoard(breakers, clock, lambda: 0.5)
        self.judge = judge()
        self.answered = Wakeup()

    def lane(self, name: str, client: ScriptedTier, *, refresh_load: Any = nothing_to_refresh, **limits: Any) -> Lane:
        given: dict[str, Any] = {
            "concurrency": 4,
            "total_timeout_s": 60.0,
            "is_local": name == "edge",
            "logs_text": False,
            "max_attempts": 4,
        }
        given |= limits
        concurrency = given.pop("concurrency")
        attempts = Attempts(
            name,
            client,
            AttemptLimits(**given, backoff=Backoff(2.0, 300.0), request=LIMITS),
            self.store,
            self.board,
            self.clock,
            lambda: 0.5,
            judge=lambda: self.judge,
            answered=self.answered,
        )
        return Lane(
            name,
            client,
            attempts,
            self.store,
            self.board,
            self.clock,
            concurrency=concurrency,
            refresh_load=refresh_load,
        )

    async def queue(
        self, *payloads: str, tiers: tuple[str, ...] = ("hub", "edge"), decision: Any = None, **more: Any
    ) -> None:
        items = [
            request(payload, correlation=payload.encode(), now_ms=self.clock.now_ms(), **more) for payload in payloads
        ]
        await self.store.accept(items, self.clock.now_ms())
        for row in await self.store.next_received(100, ()):
            await self.store.queue_for_tiers(
                row, tiers, route="cattle", confidence=0.51239, decision=decision or {}, now_ms=self.clock.now_ms()
            )
        self.board.wake_for(tiers)

    async def rows(self, columns: str = "state, tiers, todo, attempts, rounds") -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM requests ORDER BY seq"
        return await self.database.read(lambda db: [tuple(row) for row in db.execute(query)])

    async def row(self, columns: str = "state, tiers, todo, attempts, rounds") -> tuple[Any, ...]:
        (row,) = await self.rows(columns)
        return row

    async def answers(self) -> list[str]:
        return [row.message.payload.decode() for row in await self.store.outbox_after(0, 100)]

    async def idle(self) -> None:
        await settled(self.database)

    async def done(self, count: int = 1) -> None:
        await until(lambda: self.store.counts.total() == 0)
        await self.idle()
        assert len(await self.answers()) == count

    async def wake(self) -> None:
        """What upkeep does when waits are over."""
        await self.store.wake_due(self.clock.now_ms())
        self.board.wake_all()

    @property
    def hub(self) -> BreakerState:
        return self.board.breakers["hub"].state


@pytest.fixture
async def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


# --- success ----------------------------------------------------------------------------------------


async def test_answer_is_collected_and_written(stage: Stage) -> None:
    tier = ScriptedTier([" They are ", "fine.\n"])
    async with running(stage.lane("hub", tier).run):
        await stage.queue('{"question": "how are the cows", "id": "q", "context": "barn 2"}')
        stage.clock.advance(0.25)
        await stage.done()
    (answer,) = map(json.loads, await stage.answers())
    assert answer["answer"] == "They are fine."
    assert (answer["route"], answer["tier"], answer["model"]) == ("cattle", "hub", "scripted")
    assert (answer["confidence"], answer["truncated"]) == (0.5124, False)
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5}
    assert await stage.row("state, tier, model, attempts") == ("answered", "hub", "scripted", 1)
    (call,) = tier.calls
    assert call.messages == (Message("system", "Be brief.\n\nContext:\nbarn 2"), Message("user", "how are the cows"))
    assert call.request_id == (await stage.row("id"))[0]


async def test_concurrency_is_bounded(stage: Stage) -> None:
    gate = asyncio.Event()
    tier = ScriptedTier([gate, "Yes."])
    async with running(stage.lane("hub", tier, concurrency=2).run):
        await stage.queue(*"abcde")
        await until(lambda: tier.at_once == 2)
        await stage.idle()
        assert len(tier.calls) == 2
        gate.set()
        await stage.done(5)
    assert tier.most_at_once == 2


async def test_split_emoji_is_joined_in_the_answer(stage: Stage) -> None:
    async with running(stage.lane("hub", ScriptedTier(["Moo \ud83d", "\udc04 \ud83d"])).run):
        await stage.queue("a")
        await stage.done()
    assert await stage.answers() == ["Moo \N{COW} \N{REPLACEMENT CHARACTER}"]


async def test_truncated_upstream_answer_is_sent_as_truncated(stage: Stage) -> None:
    async with running(stage.lane("hub", ScriptedTier(["Half an", LENGTH])).run):
        await stage.queue('{"question": "a"}')
        await stage.done()
    (answer,) = map(json.loads, await stage.answers())
    assert (answer["answer"], answer["truncated"]) == ("Half an", True)


# --- failures ---------------------------------------------------------------------------------------


async def test_unreachable_tier_opens_its_breaker_and_costs_no_attempt(stage: Stage) -> None:
    hub, edge = ScriptedTier(UnreachableError("refused"), probes=[False]), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await stage.done()
    assert (stage.hub, len(hub.calls)) == (BreakerState.OPEN, 1)
    assert await stage.row("state, tier, attempts") == ("answered", "edge", 1)


async def test_request_waits_while_nobody_can_be_reached(stage: Stage) -> None:
    hub = ScriptedTier(UnreachableError("refused"), probes=[False])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        for _ in range(50):
            stage.clock.advance(30.0)
            await stage.idle()
    assert await stage.row() == ("pending", "hub", "hub", 0, 0)
    assert len(hub.calls) == 1
    assert 10 < hub.probed < 50


async def test_server_error_goes_to_the_next_tier_before_waiting(stage: Stage) -> None:
    hub, edge = ScriptedTier(TransientError("HTTP 503")), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await stage.done()
    assert stage.hub is BreakerState.CLOSED
    assert await stage.row("state, tier, attempts, rounds") == ("answered", "edge", 2, 0)


async def test_round_that_failed_waits_with_backoff_and_starts_again(stage: Stage) -> None:
    hub = ScriptedTier(TransientError("HTTP 500"), ["Fine."])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: stage.store.counts[State.PENDING] == 1 and hub.calls)
        await stage.idle()
        assert await stage.store.next_due_ms() == START_MS + 1000  # half of two seconds
        assert await stage.row() == ("pending", "hub", "hub", 1, 1)
        stage.clock.advance(1.0)
        await stage.wake()
        await stage.done()
    assert hub.calls[0].request_id == hub.calls[1].request_id


async def test_failures_in_a_row_open_the_breaker(stage: Stage) -> None:
    hub = ScriptedTier(TransientError("HTTP 500"), probes=[False])
    async with running(stage.lane("hub", hub, concurrency=1).run):
        await stage.queue(*"abcde", tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        await stage.idle()
    assert len(hub.calls) == 3


async def test_last_attempt_is_answered_with_an_error(stage: Stage) -> None:
    hub = ScriptedTier(TransientError("HTTP 500"))
    async with running(stage.lane("hub", hub, max_attempts=2).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: hub.calls)
        await stage.idle()
        stage.clock.advance(10.0)
        await stage.wake()
        await stage.done()
    assert (await stage.answers())[0] == "error upstream_failed: hub: transient: HTTP 500"
    assert len(hub.calls) == 2


async def test_refusal_is_final_for_its_tier(stage: Stage) -> None:
    hub, edge = ScriptedTier(PermanentError("HTTP 400")), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await stage.done()
        assert (len(hub.calls), stage.hub) == (1, BreakerState.CLOSED)
        await stage.queue("b", tiers=("hub",))
        await stage.done(2)
    assert (await stage.answers())[1] == "error upstream_failed: hub: refused: HTTP 400"
    assert len(hub.calls) == 2


async def test_refused_credentials_pause_the_tier_and_keep_the_queue(stage: Stage) -> None:
    hub = ScriptedTier(CredentialsError("HTTP 401"), ["Fine."], probes=[False, True])
    async with running(stage.lane("hub", hub, concurrency=1).run):
        await stage.queue("a", "b", tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        await stage.idle()
        assert [row[0] for row in await stage.rows("state")] == ["pending", "pending"]
        for _ in range(2):
            stage.clock.advance(5.0)
            await stage.idle()
        await stage.done(2)


@pytest.mark.parametrize(
    "script", [["Half", LENGTH], [LOOP], [" \n"], ModelError("crashed"), ["Text, then ", ModelError("crashed")]]
)
async def test_unfit_local_answer_escalates(stage: Stage, script: Any) -> None:
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier(script)
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a", tiers=("edge", "hub"))
        await stage.done()
    assert await stage.answers() == ["Fine."]
    assert (len(edge.calls), stage.board.breakers["edge"].state) == (1, BreakerState.CLOSED)


SURE, UNSURE = Evidence(-0.1, -0.3), Evidence(-2.0, -4.0)


def said(text: str, evidence: Evidence | None = None, *, fingerprint: str = "m:1") -> Script:
    return [text, Done("stop", "scripted", 3, 5, evidence, fingerprint)]


async def judgements(stage: Stage) -> list[Judged]:
    query = "SELECT note FROM history WHERE event = 'judged' ORDER BY seq"
    return await stage.database.read(lambda db: [parse_judged(row[0]) for row in db.execute(query)])


@pytest.mark.parametrize(
    ("strategy", "script", "answer", "fault"),
    [
        ("cascade", said("Sure.", SURE), "Sure.", None),
        ("cascade", said("Perhaps.", UNSURE), "Fine.", "unlikely"),
        ("cascade", said("Perhaps."), "Perhaps.", None),
        ("semantic", said("Perhaps.", UNSURE), "Perhaps.", None),
        ("semantic", said("As an AI, I cannot know.", SURE), "Fine.", "refusal"),
        ("semantic", said("Den Kühen geht es gut und sie sind auf der Weide.", SURE), "Fine.", "wrong language"),
        ("semantic", said(" ", SURE), "Fine.", "empty"),
    ],
)
async def test_local_answer_is_judged_before_it_is_sent(
    stage: Stage, strategy: str, script: Any, answer: str, fault: str | None
) -> None:
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier(script)
    rules = LocalRules(refusal_phrases=("as an ai",))
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge, local=rules).run):
        await stage.queue(
            "how are the cows and what do they eat", tiers=("edge", "hub"), decision={"strategy": strategy}
        )
        await stage.done()
    assert await stage.answers() == [answer]
    (judged,) = await judgements(stage)
    assert (judged.tier, judged.model, judged.fault) == ("edge", "m:1", fault)
    notes = await stage.database.read(lambda db: [row[0] for row in db.execute("SELECT note FROM history")])
    assert (f"edge: unfit: the answer was {fault}" in notes) == (fault is not None)


async def test_tier_may_ask_for_confidence_whatever_the_strategy(stage: Stage) -> None:
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier(said("Perhaps.", UNSURE))
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge, local=LocalRules(min_confidence=0.2)).run):
        await stage.queue("a", tiers=("edge", "hub"))
        await stage.done()
    (judged,) = await judgements(stage)
    assert (judged.confidence, judged.least, judged.is_calibrated) == (0.1353, 0.2, False)


@pytest.mark.parametrize(("fingerprint", "answer"), [("m:1", "Fine."), ("m:2", "Surely.")])
async def test_calibration_counts_for_its_own_model_only(stage: Stage, fingerprint: str, answer: str) -> None:
    never = AnswerCalibration("m:1", Platt((0.0, 0.0), -5.0, (0.0, 0.0), (1.0, 1.0)), 10, 10, 0.5)
    stage.judge = replace(stage.judge, calibrations={"m:1": never})
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier(said("Surely.", SURE, fingerprint=fingerprint))
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a", tiers=("edge", "hub"), decision={"strategy": "cascade"})
        await stage.done()
    assert await stage.answers() == [answer]
    assert [judged.is_calibrated for judged in await judgements(stage)] == [fingerprint == "m:1"]


@pytest.mark.parametrize(
    ("script", "answer"),
    [(["Half an", LENGTH], "Half an"), ([LOOP], "error offline_rejected"), ([" "], "error offline")],
)
async def test_impatient_route_takes_a_lesser_answer_over_none(stage: Stage, script: Any, answer: str) -> None:
    stage.judge = judge(when_offline="reject")
    stage.board.unreachable("hub", "down")
    async with running(stage.lane("edge", ScriptedTier(script)).run):
        await stage.queue("a", tiers=("edge", "hub"))
        await stage.done()
    (found,) = await stage.answers()
    assert found.startswith(answer)


async def test_local_model_leaves_time_for_the_next_tier(stage: Stage) -> None:
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier([asyncio.Event()])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge, local=LocalRules(ttl_share=0.5)).run):
        await stage.queue('{"question": "a", "ttl_s": 10}', tiers=("edge", "hub"))
        await until(lambda: edge.calls)
        assert edge.calls[0].deadline_s == 5.0
        stage.clock.advance(5.1)
        await stage.done()
    (answer,) = map(json.loads, await stage.answers())
    assert (answer["tier"], stage.board.breakers["edge"].state) == ("hub", BreakerState.CLOSED)


async def test_local_model_has_all_the_time_where_it_is_alone(stage: Stage) -> None:
    edge = ScriptedTier(["Fine."])
    stage.board.unreachable("hub", "down")
    async with running(stage.lane("edge", edge, local=LocalRules(ttl_share=0.5)).run):
        await stage.queue('{"question": "a", "ttl_s": 10}', tiers=("edge", "hub"))
        await stage.done()
    assert edge.calls[0].deadline_s == 10.0


async def test_next_tier_relieves_one_whose_queue_is_too_long(stage: Stage) -> None:
    """Of ten requests at two seconds each, those are left that the first tier answers within its six."""
    load = Load(stage.store, stage.board, stage.clock, {"edge": Capacity(1, 6.0), "hub": Capacity(4, None)})
    stage.board.latencies["edge"].add(2000.0)
    wait = asyncio.Event()
    hub, edge = ScriptedTier(["Fine."]), ScriptedTier([wait, "Late."])
    lanes = [
        stage.lane("edge", edge, concurrency=1, refresh_load=load.refresh),
        stage.lane("hub", hub, concurrency=1, refresh_load=load.refresh),
    ]
    async with running(lanes[0].run):
        await stage.queue(*map(str, range(10)), tiers=("edge", "hub"))
        await until(lambda: edge.calls)
        async with running(lanes[1].run):
            while stage.store.counts["pending"] > 2:
                stage.clock.advance(REFRESH_S)
                stage.board.wake_all()
                await stage.idle()
            before = len(hub.calls)
            for _ in range(3):
                stage.clock.advance(REFRESH_S)
                stage.board.wake_all()
                await stage.idle()
            assert (before, len(hub.calls), len(edge.calls)) == (7, 7, 1)
            wait.set()
            await stage.done(10)


async def test_only_answers_fit_to_send_tell_how_quick_a_tier_is(stage: Stage) -> None:
    wait = asyncio.Event()
    hub, edge = ScriptedTier([wait, "Fine."]), ScriptedTier([" "])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a", tiers=("edge", "hub"))
        await until(lambda: hub.calls)
        stage.clock.advance(0.25)
        wait.set()
        await stage.done()
    assert {name: tier.latency_ms for name, tier in stage.board.signals().items()} == {"hub": 250.0, "edge": None}


async def test_truncated_local_answer_is_better_than_none(stage: Stage) -> None:
    async with running(stage.lane("edge", ScriptedTier(["Half an", LENGTH])).run):
        await stage.queue('{"question": "a"}', tiers=("edge",))
        await stage.done()
    (answer,) = map(json.loads, await stage.answers())
    assert (answer["answer"], answer["truncated"]) == ("Half an", True)


async def test_nonsense_is_not_sent_even_as_a_last_resort(stage: Stage) -> None:
    async with running(stage.lane("edge", ScriptedTier([LOOP])).run):
        await stage.queue("a", tiers=("edge",))
        await stage.done()
    assert await stage.answers() == ["error upstream_failed: edge: unfit: the answer was repetitive"]


async def test_stream_that_ends_early_is_never_a_whole_answer(stage: Stage) -> None:
    hub, edge = ScriptedTier(["Half a sente", TransientError("broke off")]), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await stage.done()
    assert await stage.answers() == ["Fine."]


async def test_bug_in_a_client_is_a_failed_attempt(stage: Stage) -> None:
    hub, edge = ScriptedTier(KeyError("choices")), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await stage.done()
    assert await stage.answers() == ["Fine."]


async def test_route_that_rejects_offline_does_not_wait(stage: Stage) -> None:
    stage.judge = judge(to=["hub"], when_offline="reject")
    async with running(stage.lane("hub", ScriptedTier(UnreachableError("refused"), probes=[False])).run):
        await stage.queue("a", tiers=("hub",))
        await stage.done()
    assert (await stage.answers())[0].startswith("error offline_rejected: hub: unreachable")


async def test_attempt_of_a_route_paused_meanwhile_fails_into_the_queue(stage: Stage) -> None:
    stage.judge = judge(to=["hub"], when_offline="reject")
    paused = asyncio.Event()
    hub = ScriptedTier([paused, UnreachableError("refused")], probes=[False])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: hub.calls)
        await stage.store.pause_route("cattle", "me", stage.clock.now_ms())
        paused.set()
        await until(lambda: stage.store.counts[State.PENDING] == 1)
    assert await stage.answers() == []


# --- time -------------------------------------------------------------------------------------------


async def test_retry_after_holds_the_tier_back(stage: Stage) -> None:
    hub = ScriptedTier(TransientError("HTTP 429", retry_after_s=30.0), ["Fine."])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: hub.calls and stage.store.counts[State.PENDING] == 1)
        await stage.queue("b", tiers=("hub",))
        for _ in range(29):
            stage.clock.advance(1.0)
            await stage.wake()
            await stage.idle()
        assert len(hub.calls) == 1
        stage.clock.advance(1.1)
        await stage.wake()
        await stage.done(2)


async def test_attempt_ends_at_the_tiers_own_limit(stage: Stage) -> None:
    hub, edge = ScriptedTier([asyncio.Event()]), ScriptedTier(["Fine."])
    async with running(stage.lane("hub", hub, total_timeout_s=20.0).run, stage.lane("edge", edge).run):
        await stage.queue("a")
        await until(lambda: hub.at_once)
        assert hub.calls[0].deadline_s == 20.0
        stage.clock.advance(20.1)
        await stage.done()
    assert (await stage.answers(), hub.at_once) == (["Fine."], 0)
    assert stage.board.breakers["hub"].failures == 1


async def test_attempt_ends_with_the_requests_time_and_does_not_blame_the_tier(stage: Stage) -> None:
    hub = ScriptedTier([asyncio.Event()])
    async with running(stage.lane("hub", hub).run):
        await stage.queue(*"abcd", tiers=("hub",), expiry_s=5)
        await until(lambda: hub.at_once == 4)
        assert hub.calls[0].deadline_s == 5.0
        stage.clock.advance(5.1)
        await stage.done(4)
    assert await stage.rows("state, reason, attempts") == [("expired", "expired", 1)] * 4
    assert (stage.hub, stage.board.breakers["hub"].failures) == (BreakerState.CLOSED, 0)


# --- after an outage --------------------------------------------------------------------------------


async def test_half_open_breaker_lets_one_request_through_and_then_ramps_up(stage: Stage) -> None:
    gates = [asyncio.Event() for _ in range(10)]
    scripts: list[Script] = [[gate, "Fine."] for gate in gates]
    hub = ScriptedTier(UnreachableError("refused"), *scripts, probes=[True])
    async with running(stage.lane("hub", hub, concurrency=8).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        await stage.queue(*"bcdefghij", tiers=("hub",))
        stage.clock.advance(1.1)
        await until(lambda: hub.at_once)
        at_once = []
        for gate in gates[:4]:
            await stage.idle()
            at_once.append(hub.at_once)
            gate.set()
        for gate in gates:
            gate.set()
        await stage.done(10)
    assert (at_once, hub.probed, stage.hub) == ([1, 2, 4, 7], 1, BreakerState.CLOSED)


async def test_tier_that_answered_errors_ramps_up_as_well(stage: Stage) -> None:
    gates = [asyncio.Event() for _ in range(5)]
    errors = [TransientError("HTTP 503")] * 3
    hub = ScriptedTier(*errors, *([gate, "Fine."] for gate in gates), probes=[True])  # type: ignore[arg-type]
    async with running(stage.lane("hub", hub, concurrency=4).run):
        await stage.queue(*"abc", tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        await stage.queue(*"de", tiers=("hub",))
        stage.clock.advance(1.1)
        await stage.wake()
        at_once = []
        await until(lambda: hub.at_once)
        for gate in gates[:2]:
            await stage.idle()
            at_once.append(hub.at_once)
            gate.set()
        for gate in gates:
            gate.set()
        await stage.done(5)
    assert at_once == [1, 2]


async def test_failure_in_half_open_waits_for_the_next_probe(stage: Stage) -> None:
    hub = ScriptedTier(UnreachableError("refused"), TransientError("HTTP 503"), ["Fine."], probes=[True])
    async with running(stage.lane("hub", hub, concurrency=1).run):
        await stage.queue("a", "b", tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        stage.clock.advance(1.1)
        await until(lambda: len(hub.calls) == 2)
        await stage.idle()
        assert (stage.hub, hub.probed, len(hub.calls)) == (BreakerState.OPEN, 1, 2)
        stage.clock.advance(2.1)
        await stage.wake()
        await stage.done(2)


async def test_backlog_drains_in_order_of_priority(stage: Stage) -> None:
    hub = ScriptedTier(UnreachableError("refused"), ["Fine."], probes=[True])
    async with running(stage.lane("hub", hub, concurrency=1).run):
        await stage.queue('{"question": "first"}', tiers=("hub",))
        await until(lambda: stage.hub is BreakerState.OPEN)
        for priority in (0, 5, 9):
            await stage.queue(f'{{"question": "p{priority}", "priority": {priority}}}', tiers=("hub",))
        stage.clock.advance(1.1)
        await stage.done(4)
    assert [call.messages[-1].content for call in hub.calls[1:]] == ["p9", "p5", "first", "p0"]


# --- leases, the store, the end ---------------------------------------------------------------------


async def test_late_answer_of_a_lost_lease_is_dropped(stage: Stage) -> None:
    gate = asyncio.Event()
    hub = ScriptedTier([gate, "Late."], ["In time."])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: hub.at_once)
        await stage.store.release_leases(START_MS)
        (held,) = await stage.store.claim("hub", ["hub"], 1, START_MS)
        gate.set()
        await until(lambda: not hub.at_once)
        await stage.idle()
        assert await stage.answers() == []
        await stage.store.release(held, Waiting(("hub",), ("hub",)), note="", now_ms=START_MS, is_counted=False)
        stage.board.wake_all()
        await stage.done()
    assert await stage.answers() == ["In time."]


async def test_answer_waits_for_a_store_that_fails_and_is_not_asked_for_twice(stage: Stage) -> None:
    gate = asyncio.Event()
    hub = ScriptedTier([gate, "Dear answer."])
    async with running(stage.lane("hub", hub).run):
        await stage.queue("a", tiers=("hub",))
        await until(lambda: hub.at_once)
        stage.database.error = StoreError("the disk is full")
        gate.set()
        await until(lambda: stage.database.refused >= 1)
        stage.clock.advance(1.01)
        await until(lambda: stage.database.refused >= 2)
        stage.database.error = None
        stage.clock.advance(1.01)
        await stage.done()
    assert (await stage.answers(), len(hub.calls)) == (["Dear answer."], 1)


async def test_claims_wait_for_a_store_that_fails(stage: Stage) -> None:
    hub = ScriptedTier(["Fine."])
    await stage.queue("a", tiers=("hub",))
    stage.database.error = StoreError("the disk is full")
    async with running(stage.lane("hub", hub).run):
        await until(lambda: stage.database.refused == 1)
        await stage.idle()
        assert stage.database.refused == 1
        stage.database.error = None
        stage.clock.advance(1.01)
        stage.board.wake_all()
        await stage.done()


async def test_failed_disk_ends_the_lane(stage: Stage) -> None:
    await stage.queue("a", tiers=("hub",))
    stage.database.error = StoreFatalError("fsync failed")
    task = asyncio.create_task(stage.lane("hub", ScriptedTier(["Fine."])).run())
    await until(task.done)
    with pytest.raises(BaseExceptionGroup) as caught:
        task.result()
    assert caught.group_contains(StoreFatalError)


async def test_stopped_lane_finishes_what_is_in_flight_and_takes_no_more(stage: Stage) -> None:
    gate = asyncio.Event()
    hub = ScriptedTier([gate, "Fine."])
    lane = stage.lane("hub", hub, concurrency=1)
    async with running(lane.run) as (task,):
        await stage.queue("a", "b", tiers=("hub",))
        await until(lambda: hub.at_once)
        lane.stop()
        await stage.idle()
        assert not task.done()
        gate.set()
        await until(task.done)
    assert (await stage.answers(), lane.in_flight) == (["Fine."], 0)
    assert [state for (state,) in await stage.rows("state")] == ["answered", "pending"]


async def test_answer_locally_means_now_or_not_at_all(stage: Stage) -> None:
    """With the hub down and the local answer unfit, waiting a day for the hub is not what the route asked for."""
    stage.judge = judge(to=["edge", "hub"], when_offline="answer_locally")
    stage.board.unreachable("hub", "down")
    async with running(stage.lane("edge", ScriptedTier([LOOP])).run):
        await stage.queue("a", tiers=("edge", "hub"))
        await stage.done()
    assert (await stage.answers())[0].startswith("error upstream_failed: edge: unfit")


async def test_suspect_of_one_tier_waits_for_that_of_another_and_no_longer(stage: Stage) -> None:
    gate = asyncio.Event()
    await stage.queue("a", tiers=("hub",))
    await stage.queue("b", tiers=("edge",))
    await stage.store.claim("hub", ["hub"], 1, stage.clock.now_ms())
    await stage.store.claim("edge", ["edge"], 1, stage.clock.now_ms())
    await stage.store.recover(stage.clock.now_ms(), ("hub", "edge"))  # it crashed with both in hand
    hub, edge = ScriptedTier([gate, "Yes."]), ScriptedTier([gate, "Yes."])
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await until(lambda: hub.calls or edge.calls)
        await stage.idle()
        assert len(hub.calls) + len(edge.calls) == 1
        gate.set()
        await stage.done(2)
