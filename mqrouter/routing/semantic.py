"""Semantic: cosine between the question and each route's centroid."""

from __future__ import annotations

from collections.abc import Mapping

from mqrouter.routing.decision import Scores
from mqrouter.routing.examples import ExampleIndex
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank


class Semantic:
    """Scores are cosines in [-1, 1]; a centroid is the unit-length mean of its route's examples."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._index = ExampleIndex(routes)
        self._nearest = nearest

    def score(self, signals: Signals) -> Scores:
        question, index = signals.embedding.vector, self._index
        similarities = index.similarities(question)
        ranked = rank(index.names, similarities, index.thresholds, signals.asked_route)
        found = index.nearest(question, similarities, self._nearest)
        return Scores(ranked, index.neighbours(found, self._nearest))
