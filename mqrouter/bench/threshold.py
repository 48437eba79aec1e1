"""A strategy under one threshold for every route, wherever its own ones come from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mqrouter.routing.cascade import Cascade
from mqrouter.routing.decision import RouteScore, Scores
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import Strategy


def at_threshold(strategy: Strategy, threshold: float | None) -> Strategy:
    """Returns the strategy as it is for None."""
    if threshold is None:
        return strategy
    return _CascadeAt(strategy, threshold) if isinstance(strategy, Cascade) else _At(strategy, threshold)


class _At:
    def __init__(self, strategy: Strategy, threshold: float) -> None:
        self._strategy, self._threshold = strategy, threshold

    def score(self, signals: Signals) -> Scores:
        scores = self._strategy.score(signals)
        ranked = tuple(RouteScore(entry.route, entry.score, self._threshold, entry.terms) for entry in scores.ranked)
        return replace(scores, ranked=ranked)


class _CascadeAt(Cascade):
    """Still a cascade: the judge asks it for the order of the tiers."""

    def __init__(self, cascade: Cascade, threshold: float) -> None:
        self._cascade, self._at = cascade, _At(cascade, threshold)

    def score(self, signals: Signals) -> Scores:
        return self._at.score(signals)

    def order(self, tiers: Sequence[str], local: Collection[str]) -> tuple[str, ...]:
        return self._cascade.order(tiers, local)

    @property
    def least_confidence(self) -> float:
        return self._cascade.least_confidence
