"""The least confidence at which a route is taken, so that those taken are right often enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mqrouter.routing.calibration import Bools, Floats
from mqrouter.routing.softmax import Labels

PRIOR_STRENGTH = 50.0
"""A route's own examples count against so many of the pool's: ten held-out examples prove little alone.

So many are worth what routes really differ in precision (beta-binomial estimate on CLINC150, 100 examples a route).
"""

NEVER = 1.01  # above every confidence


@dataclass(frozen=True, slots=True)
class Kept:
    """What a threshold would have done to the held-out examples that came out as this route."""

    route: int
    threshold: float
    examples: int
    coverage: float
    precision: float | None
    """None where nothing is kept."""


def pooled_threshold(confidence: Floats, is_right: Bools, target: float) -> float:
    """Returns the lowest confidence above which at least `target` of the examples are right; NEVER if there is none."""
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    return _lowest(confidence[order], precision >= target)


def route_thresholds(
    confidence: Floats, chosen: Labels, is_right: Bools, routes: int, target: float
) -> tuple[Kept, ...]:
    """Returns a threshold per route from held-out examples; each leans on the pool as far as its own are few.

    A route's precision above a threshold is taken as (right + prior · pool's precision there) / (kept + prior).
    """
    pool_order = np.argsort(-confidence, kind="stable")
    pool_confidence = confidence[pool_order]
    pool_precision = np.cumsum(is_right[pool_order]) / np.arange(1, len(pool_order) + 1)
    pool = _lowest(pool_confidence, pool_precision >= target)
    found = []
    for route in range(routes):
        mine = chosen == route
        order = np.argsort(-confidence[mine], kind="stable")
        ranked, right = confidence[mine][order], is_right[mine][order]
        pool_there = pool_precision[np.searchsorted(-pool_confidence, -ranked, side="right") - 1]
        kept = np.arange(1, len(ranked) + 1)
        precision = (np.cumsum(right) + PRIOR_STRENGTH * pool_there) / (kept + PRIOR_STRENGTH)
        found.append(_kept(route, _lowest(ranked, precision >= target) if len(ranked) else pool, ranked, right))
    return tuple(found)


def _lowest(ranked: Floats, is_enough: Bools) -> float:
    """Returns the confidence of the last rank that is enough. Equal confidences are kept or left together."""
    is_last_of_equals = np.append(ranked[1:] < ranked[:-1], True)
    enough = np.flatnonzero(is_enough & is_last_of_equals)
    if not len(enough):
        return NEVER
    last = int(enough[-1])
    if last == len(ranked) - 1:
        return 0.0  # everything may be kept, also what is less certain than anything seen
    return float(ranked[last])


def _kept(route: int, threshold: float, ranked: Floats, right: Bools) -> Kept:
    keep = ranked >= threshold
    precision = float(right[keep].mean()) if keep.any() else None
    coverage = float(keep.mean()) if len(ranked) else 0.0
    return Kept(route, threshold, len(ranked), coverage, precision)
