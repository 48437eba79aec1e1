"""The whole bench: the judge of every strategy, the tiers, the meter, and a run for every variant."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace

from mqrouter import wiring
from mqrouter.bench.answering import Answering, AnsweringTier, Price
from mqrouter.bench.energy import sampled
from mqrouter.bench.measure import Measure, TimedEmbedder
from mqrouter.bench.questions import Asked
from mqrouter.bench.rows import Query, Total, Variant, Write
from mqrouter.bench.summary import summarise
from mqrouter.bench.threshold import at_threshold
from mqrouter.edge.embedder import LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors
from mqrouter.edge.power import Meter, find_meter
from mqrouter.edge.system import SystemClock
from mqrouter.flow.judge import Judge
from mqrouter.flow.ports import TierClient
from mqrouter.flow.tiers import TierBoard
from mqrouter.settings import LocalTier, Settings, Tier

ShowProgress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass
class Bench:
    """What is to be measured, and what was."""

    settings: Settings
    variants: tuple[Variant, ...]
    asked: list[Asked]
    is_answered: bool
    repeat: int
    seed: int
    rows: dict[Variant, list[Query]] = field(default_factory=dict)
    totals: dict[Variant, Total] = field(default_factory=dict)
    meter: Meter | None = None
    failures: dict[str, int] = field(default_factory=dict)


async def run(bench: Bench, write_total: Write, write_query: Write, show: ShowProgress) -> None:
    """Measures every variant, one after the other. Raises MqrouterError, or OSError where a row cannot be written."""
    embedder, fingerprint = wiring.embedder(bench.settings)
    async with AsyncExitStack() as stack:
        await embedder.start()
        stack.push_async_callback(embedder.close)
        vectors = wiring.example_vectors(bench.settings, fingerprint, is_read_only=True)
        judges = await _judges(bench, embedder, vectors, show)
        bench.meter = find_meter()
        for variant in bench.variants:
            async with AsyncExitStack() as tiers:
                measure = await _build(bench, embedder, tiers)
                async with sampled(bench.meter):
                    bench.rows[variant] = await _rows(
                        bench, measure, judges[variant.strategy], variant, write_query, show
                    )
                _count_failures(bench, measure.answering)
            bench.totals[variant] = summarise(variant, bench.rows[variant])
            write_total(bench.totals[variant])


async def _rows(
    bench: Bench, measure: Measure, judge: Judge, variant: Variant, write: Write, show: ShowProgress
) -> list[Query]:
    judge = replace(judge, strategy=at_threshold(judge.strategy, variant.threshold))
    rows: list[Query] = []
    with show(variant.name) as progress:
        async for row in measure.run(judge, variant, bench.asked, repeat=bench.repeat, seed=bench.seed):
            write(row)
            rows.append(row)
            progress(len(rows), bench.repeat * len(bench.asked))
    return rows


async def _judges(
    bench: Bench, embedder: LlamaEmbedder, vectors: ExampleVectors, show: ShowProgress
) -> dict[str, Judge]:
    """Returns the daemon's judge under each strategy. Raises ConfigError where one lacks what it needs."""
    judges: dict[str, Judge] = {}
    with show("preparing") as progress:
        for number, name in enumerate(names := {variant.strategy: None for variant in bench.variants}):
            progress(number, len(names))
            routing = bench.settings.routing.model_copy(update={"strategy": name})
            settings = bench.settings.model_copy(update={"routing": routing})
            judges[name] = await wiring.build_judge(settings, embedder, vectors)
    return judges


async def _build(bench: Bench, embedder: LlamaEmbedder, stack: AsyncExitStack) -> Measure:
    """Returns what measures one configuration: with tiers and breakers of its own, none inherits another's outage."""
    answering = await open_answering(bench.settings, bench.seed, stack) if bench.is_answered else None
    return Measure(
        TimedEmbedder(embedder, time.perf_counter),
        time.perf_counter,
        {name: tier.model for name, tier in bench.settings.tiers.items()},
        answering,
        bench.meter,
        run_id=f"bench-{uuid.uuid4().hex}",
    )


async def open_answering(settings: Settings, seed: int, stack: AsyncExitStack) -> Answering:
    """Returns the configured tiers, ready to be asked until the stack is closed. Raises ConfigError."""
    clock = SystemClock()
    tiers = {
        name: AnsweringTier(
            await open_client(settings, name, stack),
            isinstance(tier, LocalTier),
            tier.total_timeout_s,
            _price(tier),
            wiring.attempt_limits(settings, tier).local,
        )
        for name, tier in settings.tiers.items()
    }
    board = TierBoard(wiring.breakers(settings), clock, random.Random(seed).random)
    attempts = settings.retry.max_attempts
    answering = Answering(tiers, board, clock, max_attempts=attempts, timer_s=time.perf_counter)
    await answering.warm_up()
    return answering


async def open_client(settings: Settings, name: str, stack: AsyncExitStack) -> TierClient:
    tier = settings.tiers[name]
    if isinstance(tier, LocalTier):
        worker = wiring.chat_worker(settings, tier)
        stack.push_async_callback(worker.close)
        return worker
    return await stack.enter_async_context(wiring.upstream_client(name, tier))


def _price(tier: Tier) -> Price | None:
    prompt, completion = tier.prompt_price_per_million, tier.completion_price_per_million
    return None if prompt is None or completion is None else Price(prompt, completion)


def _count_failures(bench: Bench, answering: Answering | None) -> None:
    for failure, count in () if answering is None else answering.failures.items():
        bench.failures[failure] = bench.failures.get(failure, 0) + count
