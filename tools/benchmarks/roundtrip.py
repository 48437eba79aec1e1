"""roundtrip: questions answered through mosquitto, decision included, against the raw embedding rate."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.load import ask_all
from benchmarks.parts import broker, distinct_questions, gateway, gateway_config, status_of, workplace
from benchmarks.report import Figure, percentile
from mqrouter import wiring
from mqrouter.config import load
from mqrouter.settings import default_threads

QUESTIONS = 4_000
WINDOW = 64


def measure(*, share: float) -> list[Figure]:
    threads = default_threads()
    asked = list(distinct_questions(int(QUESTIONS * share)))
    with workplace() as folder, broker(folder) as port:
        config = gateway_config(folder, port, threads=threads)
        raw_per_s = asyncio.run(raw_embeddings_per_s(config, asked[: len(asked) // 4]))
        with gateway(config):
            payloads = [question.encode() for question in asked]
            result = ask_all(port, "mqrouter/farm/ask/bench", "bench/answers", payloads, window=WINDOW)
            status = status_of(folder / "data" / "control.sock")
    name = f"raw embedding rate, {threads} thread(s)"
    return [
        Figure("roundtrip", "questions answered", result.per_s, "/s", raw_per_s, name, ">= 0.8"),
        Figure("roundtrip", f"latency p50, {WINDOW} in flight", 1000 * percentile(result.latencies_s, 0.5), "ms"),
        Figure("roundtrip", f"latency p99, {WINDOW} in flight", 1000 * percentile(result.latencies_s, 0.99), "ms"),
        Figure("roundtrip", "loop lag p99", status["loop_lag_ms"]["p99"], "ms", 20, "limit", "<= 1.0"),
    ]


async def raw_embeddings_per_s(config: Path, asked: list[str]) -> float:
    embedder, _ = wiring.embedder(load(config, {}).settings)
    await embedder.start()
    try:
        begun = time.perf_counter()
        for text in asked:
            embedder.model.embed(text, normalize=True, truncate=True, return_count=False)
        return len(asked) / (time.perf_counter() - begun)
    finally:
        await embedder.close()
