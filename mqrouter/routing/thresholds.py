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
    """What became of the held-out examples that came out as a route, each under a threshold set without it."""

    route: int
    threshold: float
    """Set on all of them: the one that the route gets."""
    examples: int
    coverage: float
    precision: float | None
    """None where nothing is kept."""


def route_thresholds(confidence: Floats, chosen: Labels, is_right: Bools, routes: int, target: float) -> Floats:
    """Returns a threshold per route from held-out examples; each leans on the pool as far as its own are few.

    A route's precision above a threshold is taken as (right + prior · pool's precision there) / (kept + prior).
    """
    pool_order = np.argsort(-confidence, kind="stable")
    pool_confidence = confidence[pool_order]
    pool_precision = np.cumsum(is_right[pool_order]) / np.arange(1, len(pool_order) + 1)
    pool = _lowest(pool_confidence, pool_precision >= target)
    found = np.full(routes, pool)
    for route in np.unique(chosen):
        mine = chosen == route
        order = np.argsort(-confidence[mine], kind="stable")
        ranked, right = confidence[mine][order], is_right[mine][order]
        pool_there = pool_precision[np.searchsorted(-pool_confidence, -ranked, side="right") - 1]
        kept = np.arange(1, len(ranked) + 1)
        precision = (np.cumsum(right) + PRIOR_STRENGTH * pool_there) / (kept + PRIOR_STRENGTH)
        found[route] = _lowest(ranked, precision >= target)
    return found


def kept_across(confidence: Floats, chosen: Labels, is_right: Bools, fold: Labels, routes: int, target: float) -> Bools:
    """Returns whether each example is kept, (examples,), by thresholds set on the other folds' examples alone."""
    is_kept = np.zeros(len(fold), dtype=np.bool_)
    for number in np.unique(fold):
        out = fold == number
        thresholds = route_thresholds(confidence[~out], chosen[~out], is_right[~out], routes, target)
        is_kept[out] = confidence[out] >= thresholds[chosen[out]]
    return is_kept


def by_route(thresholds: Floats, chosen: Labels, is_right: Bools, is_kept: Bools) -> tuple[Kept, ...]:
    """Returns what became of the examples that came out as each route."""
    found = []
    for route, threshold in enumerate(thresholds.tolist()):
        mine = chosen == route
        kept = mine & is_kept
        coverage = float(is_kept[mine].mean()) if mine.any() else 0.0
        precision = float(is_right[kept].mean()) if kept.any() else None
        found.append(Kept(route, threshold, int(mine.sum()), coverage, precision))
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
