"""Learned: a head trained on the examples, its confidence a probability, its thresholds set for a precision."""

from __future__ import annotations

from collections.abc import Mapping

from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.examples import ExampleIndex
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank

RIVALS = 2
"""Routes whose examples explain a decision: to look at more costs more than to decide."""


class Learned:
    """Scores are probabilities; those of all routes together are at most 1. Raises ValueError without a head."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        head = options.head
        if head is None:
            raise ValueError("the strategy learned needs a trained head: run `mqrouter train`")
        self._head = head
        self._index = ExampleIndex(routes) if nearest else None
        self._place = {name: number for number, name in enumerate(routes)}
        self._nearest = nearest

    def score(self, signals: Signals) -> Scores:
        question = signals.embedding.vector
        found = self._head.score(question, signals.text)
        ranked = rank(
            self._head.routes,
            found.probabilities,
            self._head.thresholds,
            signals.asked_route,
            lambda i: (Term("meaning", float(found.meaning[i])), Term("words", float(found.words[i]))),
        )
        if self._index is None:
            return Scores(ranked, scope=found.scope)
        near = self._index.nearest_of(question, [self._place[entry.route] for entry in ranked[:RIVALS]], self._nearest)
        return Scores(ranked, self._index.neighbours(near, self._nearest), found.scope)
