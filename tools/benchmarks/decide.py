"""decide: a whole decision against the raw embedder call on the same question."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks import strategies
from benchmarks.parts import gateway_config, questions, workplace
from benchmarks.report import Figure, percentile
from mqrouter import wiring
from mqrouter.config import load
from mqrouter.core.request import Form, Message, Question
from mqrouter.edge.embedder import LlamaEmbedder
from mqrouter.flow.judge import Judge
from mqrouter.settings import default_threads

CONCURRENT = 64
SUSTAINED = 2_000


def measure(*, share: float, peer: str | None = None) -> list[Figure]:
    with workplace() as folder:
        figures = asyncio.run(_measure(gateway_config(folder, 1883, threads=default_threads()), share))
    if peer is not None:
        from benchmarks.litellm_peer import measure as measure_peer

        figures += measure_peer(peer, share, p50_ms=figures[0].value, per_s=figures[2].value)
    return figures


async def _measure(config: Path, share: float) -> list[Figure]:
    settings = load(config, {}).settings
    settings.gateway.data_dir.mkdir()
    embedder, fingerprint = wiring.embedder(settings)
    await embedder.start()
    try:
        judge = await wiring.build_judge(settings, embedder, wiring.example_vectors(settings, fingerprint))
        asked = [Question(text, (Message("user", text),), Form.TEXT) for text in questions()]
        asked = asked[: max(20, int(len(asked) * share))]
        raw_ms, decided_ms = await _one_by_one(embedder, judge, asked)
        raw_per_s, decided_per_s = await _sustained(embedder, judge, asked, int(SUSTAINED * share))
    finally:
        await embedder.close()
    name = f"raw embedder call, {settings.embedder.threads} thread(s)"
    beyond = await asyncio.to_thread(strategies.measure, questions(), percentile(raw_ms, 0.5), name)
    return [
        Figure("decide", "decision p50", percentile(decided_ms, 0.5), "ms", percentile(raw_ms, 0.5), name, "<= 1.10"),
        Figure("decide", "decision p99", percentile(decided_ms, 0.99), "ms", percentile(raw_ms, 0.99), name),
        Figure("decide", f"sustained, {CONCURRENT} at once", decided_per_s, "/s", raw_per_s, name, ">= 0.9"),
        *beyond,
    ]


async def _one_by_one(embedder: LlamaEmbedder, judge: Judge, asked: list[Question]) -> tuple[list[float], list[float]]:
    """Raw call and decision in turn, question by question, so that the machine's mood meets both alike."""
    raw_ms, decided_ms = [], []
    for question in asked * 2:
        raw_ms.append(1000 * _raw_s(embedder, question.text))
        begun = time.perf_counter()
        await judge.judge(question, embedder)
        decided_ms.append(1000 * (time.perf_counter() - begun))
    return raw_ms, decided_ms


async def _sustained(embedder: LlamaEmbedder, judge: Judge, asked: list[Question], count: int) -> tuple[float, float]:
    work = [asked[number % len(asked)] for number in range(count)]
    begun = time.perf_counter()
    for question in work:
        _raw_s(embedder, question.text)
    raw_s = time.perf_counter() - begun
    turns = asyncio.Semaphore(CONCURRENT)

    async def decide(question: Question) -> None:
        async with turns:
            await judge.judge(question, embedder)

    begun = time.perf_counter()
    await asyncio.gather(*(decide(question) for question in work))
    return count / raw_s, count / (time.perf_counter() - begun)


def _raw_s(embedder: LlamaEmbedder, text: str) -> float:
    """One call of llama-cpp-python's embed on the same model object; nothing else of ours."""
    model = embedder.model
    begun = time.perf_counter()
    model.embed(text, normalize=True, truncate=True, return_count=False)
    return time.perf_counter() - begun
