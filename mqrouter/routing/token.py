"""Token: long questions to the routes of strong tiers, short ones to those of weak tiers; no tokenizer, no model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mqrouter.routing.calibration import Floats
from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank

UNKNOWN_STRENGTH = 0.5


class Token:
    """A score is 1 where the route's first tier is as strong as the question is long, 0 where they are far apart."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._names = tuple(routes)
        self._thresholds = tuple(route.threshold for route in routes.values())
        self._strengths = np.array([_strength(route.to, options.tiers) for route in routes.values()])
        self._long_tokens = options.long_tokens

    def fit(self, signals: Signals) -> Floats:
        """Returns every route's score, (routes,)."""
        fit: Floats = 1 - np.abs(self._strengths - self._length(signals))
        return fit

    def score(self, signals: Signals) -> Scores:
        length, fit = self._length(signals), self.fit(signals)
        terms = (Term("estimated_tokens", signals.estimated_tokens), Term("length", length))
        return Scores(rank(self._names, fit, self._thresholds, signals.asked_route, lambda i: terms))

    def _length(self, signals: Signals) -> float:
        return min(1.0, signals.estimated_tokens / self._long_tokens)


def _strength(to: tuple[str, ...], tiers: tuple[str, ...]) -> float:
    """Returns where the first tier stands between the weakest, 0, and the strongest, 1."""
    if not to or to[0] not in tiers or len(tiers) < 2:
        return UNKNOWN_STRENGTH
    return tiers.index(to[0]) / (len(tiers) - 1)
