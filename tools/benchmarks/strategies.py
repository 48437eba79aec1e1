"""decide: what a decision costs beyond the embedding, with far more routes and examples than a farm has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import numpy as np

from benchmarks.report import Figure, percentile
from mqrouter.core.policy import TierFacts
from mqrouter.core.request import Form, Message, Question
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.routing.calibration import Platt
from mqrouter.routing.head import Head
from mqrouter.routing.landmarks import Landmarks
from mqrouter.routing.lexical import BUCKETS, WordWeights
from mqrouter.routing.registry import Strategies
from mqrouter.routing.signals import Embedding
from mqrouter.routing.strategy import Options, RouteExamples, Rule

ROUTES, EXAMPLES, DIM, LANDMARKS = 150, 100, 384, 450
TIERS = ("edge", "hub")
PLAN = RoutePlan(TIERS, "queue", None)


class ReadyVectors:
    """Embeds nothing: each question has its vector already."""

    def __init__(self, vectors: Mapping[str, Embedding]) -> None:
        self._vectors = vectors

    async def embed(self, text: str) -> Embedding:
        return self._vectors[text]


def measure(texts: list[str], raw_ms: float, raw_name: str) -> list[Figure]:
    """Returns each strategy's p50 beside that of one raw embedder call."""
    rng = np.random.default_rng(0)
    vectors = _clusters(rng)
    routes = {
        f"r{i}": RouteExamples(tuple(f"{i} {j}" for j in range(EXAMPLES)), part, 0.3, TIERS, Rule((f"word{i}",)))
        for i, part in enumerate(vectors.reshape(ROUTES, EXAMPLES, DIM))
    }
    near = vectors[rng.integers(len(vectors), size=len(texts))] + 0.03 * rng.normal(size=(len(texts), DIM))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    ready = ReadyVectors({text: Embedding(row, 8, False) for text, row in zip(texts, near, strict=True)})
    strategies = Strategies(routes, nearest=3, options=Options(head=_head(rng, tuple(routes)), tiers=TIERS))
    asked = [Question(text, (Message("user", text),), Form.TEXT) for text in texts]
    what = f"{{}} beyond the embedding, {ROUTES} routes x {EXAMPLES} examples, p50"
    return [
        Figure("decide", what.format(name), percentile(took, 0.5), "ms", raw_ms, raw_name)
        for name in strategies
        if (took := asyncio.run(_took_ms(_judge(name, strategies), ready, asked)))
    ]


async def _took_ms(judge: Judge, ready: ReadyVectors, asked: list[Question]) -> list[float]:
    took = []
    for question in asked * 3:
        begun = time.perf_counter()
        await judge.judge(question, ready)
        took.append(1000 * (time.perf_counter() - begun))
    return took


def _judge(name: str, strategies: Strategies) -> Judge:
    facts = {tier: TierFacts(tier, tier == "edge", True, 10_000) for tier in TIERS}
    plans = {f"r{i}": PLAN for i in range(ROUTES)}
    return Judge(name, strategies[name], 0.01, plans, PLAN, facts, {})


def _clusters(rng: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    centres = np.repeat(rng.normal(size=(ROUTES, DIM)), EXAMPLES, axis=0)
    vectors = centres + 1.2 * rng.normal(size=centres.shape)
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).astype(np.float32)
    return unit


def _head(rng: np.random.Generator, routes: tuple[str, ...]) -> Head:
    """A head of the shape that training gives; what its numbers are makes no difference to its cost."""

    def some(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    words = WordWeights(rng.integers(-9, 9, size=(BUCKETS, ROUTES)).astype(np.int8), np.full(ROUTES, 0.01, np.float32))
    points = Landmarks(0.05 * some(LANDMARKS, DIM), some(ROUTES + 1, LANDMARKS), some(ROUTES + 1), 4.0)
    confidence = Platt((1.0, 1.0), 0.0, (0.0, 0.0), (1.0, 1.0))
    return Head(routes, some(ROUTES, DIM + 1), words, 0.3, points, confidence, 0.1, 0.0, (0.5,) * ROUTES)
