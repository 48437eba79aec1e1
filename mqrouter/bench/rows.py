"""What the bench writes down: one row per query, one per configuration. The columns of the CSV files are these fields.

Columns are added at the end, never renamed or removed: other people's notebooks read them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Protocol

QUERY_COLUMNS = {
    "strategy": "strategy by name",
    "threshold": "threshold of every route; empty: the configured ones",
    "cache_mode": "on or off",
    "repeat": "round, from 1",
    "question": "number of the question in the file, from 1",
    "route": "route taken; empty: abstained",
    "confidence": "score of the best route, as its strategy counts",
    "tier": "tier that answered; without --answer the first of the plan",
    "model": "model that answered, as the tier names it; without --answer the configured one",
    "decision_ms": "time of the decision beyond the embedding, ms",
    "embed_ms": "time of the embedding, ms",
    "answer_ms": "time from the first attempt at a tier to the end of the answer, ms",
    "first_token_ms": "time from the first attempt at a tier to the first text of the answer, ms",
    "total_ms": "time of the whole query, ms",
    "prompt_tokens": "tokens read by the tiers, those of answers not fit to send included",
    "completion_tokens": "tokens written by the tiers, likewise",
    "success": "1: answered; without --answer: a tier would be asked",
    "correct": "1: the labelled route, or abstained where the label is null; empty: no label",
    "escalated": "1: another tier answered than the first of the plan",
    "cost": "price of the tokens, in the currency of the tiers' settings; empty: a tier used has no price",
    "energy_j": "energy of the whole device meanwhile, idling included, J; empty: no readable meter",
    "cached": "1: taken from the bench's cache",
    "error": "code of the error answer",
}

TOTAL_COLUMNS = {
    "strategy": "strategy by name",
    "threshold": "threshold of every route; empty: the configured ones",
    "cache_mode": "on or off",
    "count": "queries",
    "accuracy": "share of correct ones among the labelled",
    "coverage": "share given a route",
    "precision": "share of correct ones among those labelled and given a route",
    "latency_p50_ms": "median of total_ms",
    "latency_p95_ms": "95th percentile of total_ms",
    "latency_p99_ms": "99th percentile of total_ms",
    "decision_p50_ms": "median of decision_ms",
    "prompt_tokens": "sum",
    "completion_tokens": "sum",
    "tier_mix": "share of each tier among the successes",
    "success_share": "share of successes",
    "escalated_share": "share of escalated ones among the answered",
    "cached_share": "share taken from the cache",
    "cost": "sum; empty where one of the prices is not known",
    "energy_per_query_j": "mean of energy_j, J",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One configuration under test."""

    strategy: str
    threshold: float | None
    """None leaves every route its configured one."""
    cache_mode: str

    @property
    def name(self) -> str:
        threshold = "" if self.threshold is None else f" {self.threshold:g}"
        return f"{self.strategy}{threshold}, cache {self.cache_mode}"


@dataclass(frozen=True, slots=True)
class Query:
    """See QUERY_COLUMNS."""

    strategy: str
    threshold: float | None
    cache_mode: str
    repeat: int
    question: int
    route: str | None = None
    confidence: float | None = None
    tier: str | None = None
    model: str | None = None
    decision_ms: float | None = None
    embed_ms: float | None = None
    answer_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    success: bool = False
    correct: bool | None = None
    escalated: bool | None = None
    cost: float | None = None
    energy_j: float | None = None
    cached: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """See TOTAL_COLUMNS."""

    strategy: str
    threshold: float | None
    cache_mode: str
    count: int
    accuracy: float | None
    coverage: float
    precision: float | None
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    decision_p50_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    tier_mix: dict[str, float]
    success_share: float
    escalated_share: float | None
    cached_share: float
    cost: float | None
    energy_per_query_j: float | None


class Write(Protocol):
    def __call__(self, row: Query | Total) -> None: ...


@contextmanager
def csv_writer(path: Path | None, columns: Iterable[str]) -> Iterator[Write]:
    """Yields what writes a row; every row is on its way to disk at once, so a bench cut short leaves what it measured.

    Without a path nothing is written. Raises OSError.
    """
    if path is None:
        yield lambda row: None
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)

        def write(row: Query | Total) -> None:
            writer.writerow([_cell(value) for value in astuple(row)])
            file.flush()

        yield write


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return int(value)
        case float():
            return f"{value:.6g}"
        case dict():
            return " ".join(f"{name}:{share:.3f}" for name, share in value.items())
    return value
