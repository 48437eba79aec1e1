"""Perf: the routes whose tiers are up and quick just now."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mqrouter.routing.calibration import Floats
from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank


class Perf:
    """A score is that of the route's first tier that is up, 1 / (1 + latency / slow_ms); 0 where all are down."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._routes = tuple(route.to for route in routes.values())
        self._names = tuple(routes)
        self._thresholds = tuple(route.threshold for route in routes.values())
        self._slow_ms = options.slow_ms

    def worth(self, signals: Signals) -> tuple[Floats, list[str | None]]:
        """Returns every route's score, (routes,), and the tier that it stands for."""
        worth = {
            name: 1 / (1 + (tier.latency_ms or 0.0) / self._slow_ms)
            for name, tier in signals.tiers.items()
            if tier.is_up
        }
        first = [next((tier for tier in to if tier in worth), None) for to in self._routes]
        return np.array([0.0 if tier is None else worth[tier] for tier in first]), first

    def score(self, signals: Signals) -> Scores:
        scores, first = self.worth(signals)

        def terms(index: int) -> tuple[Term, ...]:
            tier = first[index]
            return () if tier is None else (Term(f"tier {tier}", float(scores[index])),)

        return Scores(rank(self._names, scores, self._thresholds, signals.asked_route, terms))
