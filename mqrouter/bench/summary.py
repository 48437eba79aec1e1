"""From the queries of one configuration to its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from mqrouter.bench.rows import Query, Total, Variant


def summarise(variant: Variant, rows: Sequence[Query]) -> Total:
    """Returns the figures of at least one query."""
    latencies = [row.total_ms for row in rows]
    decisions = [row.decision_ms for row in rows if row.decision_ms is not None]
    return Total(
        strategy=variant.strategy,
        threshold=variant.threshold,
        cache_mode=variant.cache_mode,
        count=len(rows),
        accuracy=_share(row.correct for row in rows),
        coverage=sum(row.route is not None for row in rows) / len(rows),
        precision=_share(row.correct for row in rows if row.route is not None),
        latency_p50_ms=_percentile(latencies, 50),
        latency_p95_ms=_percentile(latencies, 95),
        latency_p99_ms=_percentile(latencies, 99),
        decision_p50_ms=_percentile(decisions, 50) if decisions else None,
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        tier_mix=_mix(row.tier for row in rows if row.success),
        success_share=sum(row.success for row in rows) / len(rows),
        escalated_share=_share(row.escalated for row in rows),
        cached_share=sum(row.cached for row in rows) / len(rows),
        cost=_cost(rows),
        energy_per_query_j=_mean([row.energy_j for row in rows if row.energy_j is not None]),
    )


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _share(claims: Iterable[bool | None]) -> float | None:
    """Returns the share of the true among those known, None where none is."""
    return _mean([float(claim) for claim in claims if claim is not None])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _mix(tiers: Iterable[str | None]) -> dict[str, float]:
    counts = Counter(tier for tier in tiers if tier is not None)
    return {tier: count / counts.total() for tier, count in counts.most_common()}


def _cost(rows: Sequence[Query]) -> float | None:
    """Returns the sum; None where a tier that generated has no price: a part of a bill compares with nothing."""
    known = [row.cost for row in rows if row.cost is not None]
    is_whole = all(row.cost is not None or not row.completion_tokens for row in rows)
    return sum(known) if known and is_whole else None
