"""One question after the other through the decision and the tiers, with a clock beside them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mqrouter.bench.answering import Answering, Judging
from mqrouter.bench.questions import Asked
from mqrouter.bench.rows import Query, Variant
from mqrouter.core.request import Question
from mqrouter.edge.power import Meter
from mqrouter.errors import ErrorCode, MqrouterError, RequestError
from mqrouter.flow.judge import Judge, Judgement
from mqrouter.flow.ports import Embedder
from mqrouter.routing.signals import Embedding

Timer = Callable[[], float]
"""Seconds, rising."""
Cache = dict[tuple[str, Question], Query]
"""Keyed by what an answer depends on: whose question it is, and all of it."""


class TimedEmbedder:
    """`last_ms` is what the latest embedding took, and what the judge does besides it is the decision."""

    def __init__(self, embedder: Embedder, timer_s: Timer) -> None:
        self._embedder = embedder
        self._timer_s = timer_s
        self.last_ms = 0.0

    async def embed(self, text: str) -> Embedding:
        started_s = self._timer_s()
        embedding = await self._embedder.embed(text)
        self.last_ms = 1000 * (self._timer_s() - started_s)
        return embedding


@dataclass(frozen=True, slots=True)
class Measure:
    """Measures queries. `models` are the tiers' configured ones; without `answering` nothing is generated."""

    embedder: TimedEmbedder
    timer_s: Timer
    models: Mapping[str, str]
    answering: Answering | None = None
    meter: Meter | None = None
    run_id: str = "bench"
    """Goes into the Idempotency-Key: a server must not take one run's questions for another's."""

    async def run(
        self, judge: Judge, variant: Variant, asked: Sequence[Asked], *, repeat: int, seed: int
    ) -> AsyncIterator[Query]:
        """Yields a row per question and round; the order of the questions is drawn anew for each round, by seed."""
        cache: Cache | None = {} if variant.cache_mode == "on" else None
        chance = random.Random(seed)  # the same order for every variant
        for number in range(1, repeat + 1):
            for one in chance.sample(asked, len(asked)):
                yield await self._query(judge, one, _empty(variant, number, one), cache)

    async def _query(self, judge: Judge, asked: Asked, row: Query, cache: Cache | None) -> Query:
        key, before_j, started_s = (asked.device, asked.question), self._joules(), self.timer_s()
        known = None if cache is None else cache.get(key)
        row = await self._fresh(judge, asked, row) if known is None else _cached(known, row)
        row = replace(row, total_ms=1000 * (self.timer_s() - started_s))
        after_j = self._joules()
        if before_j is not None and after_j is not None:
            row = replace(row, energy_j=after_j - before_j)
        if cache is not None and row.success:
            cache[key] = row
        return _labelled(row, asked)

    async def _fresh(self, judge: Judge, asked: Asked, row: Query) -> Query:
        started_s = self.timer_s()
        try:
            tiers = None if self.answering is None else self.answering.signals()
            judgement = await judge.judge(asked.question, self.embedder, tiers=tiers)
        except MqrouterError as error:
            return replace(row, error=error.code if isinstance(error, RequestError) else ErrorCode.INTERNAL)
        elapsed_ms, embed_ms = 1000 * (self.timer_s() - started_s), self.embedder.last_ms
        row = self._decided(row, judgement)
        row = replace(row, decision_ms=elapsed_ms - embed_ms, embed_ms=embed_ms)
        if self.answering is None or judgement.tier_plan.refusal is not None:
            return row
        return await self._answered(row, judge, judgement, asked.question, self.answering)

    def _decided(self, row: Query, judgement: Judgement) -> Query:
        decision, plan = judgement.decision, judgement.tier_plan
        first = plan.tiers[0] if plan.tiers else None
        return replace(
            row,
            route=decision.route,
            confidence=decision.score,
            tier=first,
            model=None if first is None else self.models.get(first),
            success=plan.refusal is None,
            error=plan.refusal,
        )

    async def _answered(
        self, row: Query, judge: Judge, judgement: Judgement, question: Question, answering: Answering
    ) -> Query:
        is_open = not judgement.private_by.is_private  # nothing is redacted here: the tier sees all or nothing
        tiers = tuple(name for name in judgement.tier_plan.tiers if is_open or judge.tiers[name].is_trusted)
        number = f"{self.run_id}-{row.strategy}-{row.threshold}-{row.cache_mode}-{row.repeat}-{row.question}"
        outcome = await answering.answer(
            number, question, tiers, judge.prompt_for(row.route), Judging(judge, row.strategy)
        )
        return replace(
            row,
            tier=outcome.tier,
            model=outcome.model,
            answer_ms=outcome.answer_ms,
            first_token_ms=outcome.first_token_ms,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            success=outcome.is_answered,
            escalated=outcome.tier != tiers[0] if outcome.is_answered else None,
            cost=outcome.cost,
            error=None if outcome.is_answered else ErrorCode.UPSTREAM_FAILED,
        )

    def _joules(self) -> float | None:
        with contextlib.suppress(OSError, ValueError):
            return None if self.meter is None else self.meter.joules()
        return None


def _empty(variant: Variant, repeat: int, asked: Asked) -> Query:
    return Query(variant.strategy, variant.threshold, variant.cache_mode, repeat, asked.number)


def _cached(known: Query, row: Query) -> Query:
    """Returns the same answer to the same question: nothing is computed, nothing is spent."""
    return replace(
        row,
        route=known.route,
        confidence=known.confidence,
        tier=known.tier,
        model=known.model,
        success=True,
        cost=None if known.cost is None else 0.0,
        cached=True,
    )


def _labelled(row: Query, asked: Asked) -> Query:
    """Returns the row with its verdict; a question that could not be decided was not decided rightly."""
    if asked.accepted is None:
        return row
    return replace(row, correct=row.confidence is not None and row.route in asked.accepted)
