"""One query after the other: what is measured, what the cache spares, and the figures made of it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from fakes import FakeClock, HashEmbedder, ScriptedTier, judge

from mqrouter.bench.answering import Answering, AnsweringTier, Price
from mqrouter.bench.measure import Measure, TimedEmbedder
from mqrouter.bench.questions import Asked
from mqrouter.bench.rows import QUERY_COLUMNS, TOTAL_COLUMNS, Query, Total, Variant
from mqrouter.bench.summary import summarise
from mqrouter.bench.threshold import at_threshold
from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.events import Done
from mqrouter.core.personal_data import Kind
from mqrouter.core.privacy import Privacy
from mqrouter.core.request import Form, Message, Question
from mqrouter.errors import MqrouterError, UnreachableError
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.flow.tiers import TierBoard
from mqrouter.routing.cascade import Cascade
from mqrouter.routing.signals import Embedding

MODELS = {"hub": "big", "edge": "smol"}


class SlowEmbedder(HashEmbedder):
    """Takes 5 ms of the clock's time."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    async def embed(self, text: str) -> Embedding:
        self._clock.advance(0.005)
        return await super().embed(text)


class CountingMeter:
    name = "counter"

    def __init__(self) -> None:
        self.used_j = 0.0

    def joules(self) -> float:
        self.used_j += 1.5
        return self.used_j


def asked(number: int, text: str, *accepted: str | None, device: str = "", is_private: bool = False) -> Asked:
    question = Question(text, (Message("user", text),), Form.TEXT, is_private=is_private)
    return Asked(number, question, device, frozenset(accepted) if accepted else None)


def answering(clock: FakeClock, *, price: Price | None = None, **clients: ScriptedTier) -> Answering:
    tiers = {name: AnsweringTier(client, name == "edge", 60.0, price) for name, client in clients.items()}
    board = TierBoard({name: Breaker(3, Backoff(1, 60)) for name in tiers}, clock, lambda: 0.0)
    return Answering(tiers, board, clock, max_attempts=8, timer_s=clock.monotonic_s)


async def rows_of(
    clock: FakeClock,
    *questions: Asked,
    cache_mode: str = "off",
    tiers: Answering | None = None,
    meter: CountingMeter | None = None,
    embedder: HashEmbedder | None = None,
    repeat: int = 1,
    seed: int = 0,
    by: Judge | None = None,
) -> list[Query]:
    timed = TimedEmbedder(embedder or SlowEmbedder(clock), clock.monotonic_s)
    measure = Measure(timed, clock.monotonic_s, MODELS, tiers, meter)
    variant = Variant("semantic", None, cache_mode)
    return [row async for row in measure.run(by or judge(), variant, questions, repeat=repeat, seed=seed)]


async def test_decision_is_measured_apart_from_its_embedding(clock: FakeClock) -> None:
    (row,) = await rows_of(clock, asked(1, "how are the cows doing", "cattle"))
    assert (row.route, row.tier, row.model, row.success, row.correct) == ("cattle", "hub", "big", True, True)
    assert row.embed_ms == pytest.approx(5.0)
    assert row.decision_ms == pytest.approx(0.0, abs=1e-6)
    assert row.total_ms == pytest.approx(5.0)
    assert (row.answer_ms, row.escalated, row.energy_j, row.cost) == (None, None, None, None)


@pytest.mark.parametrize(
    ("question", "is_correct"),
    [
        (asked(1, "zzz", None), True),
        (asked(1, "how are the cows", None), False),
        (asked(1, "how are the cows", "code", "cattle"), True),
        (asked(1, "how are the cows"), None),
    ],
)
async def test_label_decides_what_is_correct(clock: FakeClock, question: Asked, is_correct: bool | None) -> None:
    (row,) = await rows_of(clock, question)
    assert row.correct is is_correct


async def test_tiers_answer_and_are_counted(clock: FakeClock) -> None:
    hub, edge = ScriptedTier(UnreachableError("gone")), ScriptedTier(["fine", Done("stop", "smol-1", 4, 6)])
    tiers = answering(clock, price=Price(1.0, 1.0), hub=hub, edge=edge)
    (row,) = await rows_of(clock, asked(1, "how are the cows"), tiers=tiers, meter=CountingMeter())
    assert (row.tier, row.model, row.escalated, row.success) == ("edge", "smol-1", True, True)
    assert (row.prompt_tokens, row.completion_tokens) == (4, 6)
    assert row.cost == pytest.approx(1e-5)
    assert row.energy_j == pytest.approx(1.5)


async def test_question_nobody_answered_is_a_failure_with_its_code(clock: FakeClock) -> None:
    tiers = answering(clock, hub=ScriptedTier(UnreachableError("gone")), edge=ScriptedTier(UnreachableError("gone")))
    (row,) = await rows_of(clock, asked(1, "how are the cows", "cattle"), tiers=tiers)
    assert (row.success, row.tier, row.error, row.correct) == (False, None, "upstream_failed", True)


async def test_private_question_is_sent_to_no_tier_that_would_have_to_be_sent_it_redacted(clock: FakeClock) -> None:
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["fine"])
    facts = {name: replace(tier, redacts=name == "hub") for name, tier in judge().tiers.items()}
    by = replace(judge(tiers=facts), privacy=Privacy(detect=frozenset(Kind)))
    tiers = answering(clock, hub=hub, edge=edge)
    (row,) = await rows_of(clock, asked(1, "how are the cows of a@b.example"), tiers=tiers, by=by)
    assert (row.tier, hub.calls) == ("edge", [])


async def test_question_that_cannot_be_embedded_is_a_failure(clock: FakeClock) -> None:
    embedder = HashEmbedder()
    embedder.error = MqrouterError("broken")
    (row,) = await rows_of(clock, asked(1, "zzz", None), embedder=embedder)
    assert (row.success, row.error, row.correct) == (False, "internal", False)


async def test_cache_spares_the_same_question_of_the_same_device_only(clock: FakeClock) -> None:
    questions = [
        asked(1, "how are the cows", "cattle"),
        asked(2, "how are the cows", "cattle"),
        asked(3, "how are the cows", "cattle", device="barn"),
        asked(4, "how are the cows", "cattle", is_private=True),
        asked(5, "How are the cows", "cattle"),
    ]
    hub = ScriptedTier(["fine", Done("stop", "big-1", 4, 6)])
    tiers = answering(clock, price=Price(1.0, 1.0), hub=hub, edge=ScriptedTier(["fine"]))
    rows = await rows_of(clock, *questions, cache_mode="on", tiers=tiers)
    (cached,) = [row for row in rows if row.cached]
    assert cached.question in (1, 2)
    assert (cached.route, cached.model, cached.success, cached.correct) == ("cattle", "big-1", True, True)
    assert (cached.embed_ms, cached.prompt_tokens, cached.cost, cached.total_ms) == (None, 0, 0.0, 0.0)
    assert len(hub.calls) == 3


@pytest.mark.parametrize(("cache_mode", "embedded"), [("off", 6), ("on", 2)])
async def test_rounds_repeat_the_questions(clock: FakeClock, cache_mode: str, embedded: int) -> None:
    embedder = SlowEmbedder(clock)
    questions = [asked(1, "how are the cows"), asked(2, "fix my program")]
    rows = await rows_of(clock, *questions, cache_mode=cache_mode, embedder=embedder, repeat=3)
    assert sorted((row.repeat, row.question) for row in rows) == [(r, q) for r in (1, 2, 3) for q in (1, 2)]
    assert len(embedder.texts) == embedded


async def test_failures_are_not_kept(clock: FakeClock) -> None:
    tiers = answering(clock, hub=ScriptedTier(UnreachableError("gone")), edge=ScriptedTier(UnreachableError("gone")))
    rows = await rows_of(clock, asked(1, "how are the cows"), cache_mode="on", tiers=tiers, repeat=2)
    assert [row.cached for row in rows] == [False, False]


async def test_seed_draws_the_order(clock: FakeClock) -> None:
    questions = [asked(number, f"question {number}") for number in range(20)]

    async def order(seed: int) -> list[int]:
        return [row.question for row in await rows_of(clock, *questions, seed=seed)]

    assert await order(1) == await order(1) != await order(2)


@pytest.mark.parametrize("name", ["semantic", "cascade"])
async def test_threshold_replaces_those_of_all_routes(name: str) -> None:
    base = judge(to=["hub", "edge"])
    base = replace(base, strategy_name=name, strategy=base.others[name])
    question = asked(1, "how are the cows doing").question
    for threshold, route in ((0.0, "cattle"), (0.999, None)):
        found = await replace(base, strategy=at_threshold(base.strategy, threshold)).judge(question, HashEmbedder())
        assert (found.decision.route, found.decision.threshold) == (route, threshold)
    assert at_threshold(base.strategy, None) is base.strategy
    lenient = replace(base, strategy=at_threshold(base.strategy, 0.0))
    asked_in = (await lenient.judge(question, HashEmbedder())).tier_plan.tiers
    assert asked_in == (("edge", "hub") if isinstance(base.strategy, Cascade) else ("hub", "edge"))


async def test_refused_question_has_no_tier(clock: FakeClock) -> None:
    timed = TimedEmbedder(SlowEmbedder(clock), clock.monotonic_s)
    measure = Measure(timed, clock.monotonic_s, MODELS)
    nobody = judge(abstain=RoutePlan((), "queue", None))
    rows = measure.run(nobody, Variant("semantic", None, "off"), [asked(1, "zzz")], repeat=1, seed=0)
    (row,) = [row async for row in rows]
    assert (row.tier, row.success, row.error) == (None, False, "no_route")


def test_figures_are_those_of_the_rows() -> None:
    base = Query("semantic", 0.3, "off", 1, 1, success=True, tier="hub", route="a", energy_j=2.0)
    rows = [
        replace(base, correct=True, total_ms=10.0, prompt_tokens=3, completion_tokens=2, cost=0.5, escalated=False),
        replace(base, correct=False, total_ms=20.0, completion_tokens=2, cost=0.25, escalated=True, tier="edge"),
        replace(base, correct=True, route=None, total_ms=30.0, cached=True, cost=0.0),
        replace(base, correct=None, total_ms=40.0, success=False, tier=None, energy_j=None),
    ]
    total = summarise(Variant("semantic", 0.3, "off"), rows)
    assert (total.count, total.coverage, total.success_share, total.cached_share) == (4, 0.75, 0.75, 0.25)
    assert total.accuracy == pytest.approx(2 / 3)
    assert (total.precision, total.latency_p50_ms) == (0.5, 25.0)
    assert total.latency_p99_ms == pytest.approx(39.7)
    assert (total.prompt_tokens, total.completion_tokens, total.cost) == (3, 4, 0.75)
    assert total.tier_mix == {"hub": pytest.approx(2 / 3), "edge": pytest.approx(1 / 3)}
    assert (total.escalated_share, total.energy_per_query_j) == (0.5, 2.0)


def test_part_of_a_bill_is_no_cost() -> None:
    priced = Query("semantic", None, "off", 1, 1, completion_tokens=5, cost=0.5)
    assert summarise(Variant("semantic", None, "off"), [priced, replace(priced, cost=None)]).cost is None
    assert summarise(Variant("semantic", None, "off"), [priced, replace(priced, cost=0.0)]).cost == 0.5


def test_columns_are_stable() -> None:
    assert ",".join(QUERY_COLUMNS) == (
        "strategy,threshold,cache_mode,repeat,question,route,confidence,tier,model,decision_ms,embed_ms,answer_ms,"
        "first_token_ms,total_ms,prompt_tokens,completion_tokens,success,correct,escalated,cost,energy_j,cached,error"
    )
    assert ",".join(TOTAL_COLUMNS) == (
        "strategy,threshold,cache_mode,count,accuracy,coverage,precision,latency_p50_ms,latency_p95_ms,latency_p99_ms,"
        "decision_p50_ms,prompt_tokens,completion_tokens,tier_mix,success_share,escalated_share,cached_share,cost,"
        "energy_per_query_j"
    )
    assert [field.name for field in fields(Query)] == list(QUERY_COLUMNS)
    assert [field.name for field in fields(Total)] == list(TOTAL_COLUMNS)
