"""memory: the router's resident set with its embedder, after many requests."""

from __future__ import annotations

from benchmarks.load import ask_all
from benchmarks.parts import broker, distinct_questions, gateway, gateway_config, resident_mb, workplace
from benchmarks.report import Figure
from mqrouter.settings import default_threads

QUESTIONS = 10_000
SETTLED = 1_000


def measure(*, share: float) -> list[Figure]:
    asked = [question.encode() for question in distinct_questions(int(QUESTIONS * share))]
    settled = int(SETTLED * share)
    with workplace() as folder, broker(folder) as port:
        config = gateway_config(folder, port, threads=default_threads())
        with gateway(config) as daemon:
            at_start = resident_mb(daemon.pid)
            ask_all(port, "mqrouter/farm/ask/bench", "bench/first", asked[:settled], window=64)
            early = resident_mb(daemon.pid)
            ask_all(port, "mqrouter/farm/ask/bench", "bench/rest", asked[settled:], window=64)
            late = resident_mb(daemon.pid)
    return [
        Figure("memory", "router with embedder, when ready", at_start, "MB"),
        Figure("memory", f"after {len(asked):,} requests", late, "MB", 160, "limit", "<= 1.0"),
        Figure(
            "memory", f"after {len(asked):,} requests against after {settled:,}", late, "MB", early, "early", "flat"
        ),
    ]
