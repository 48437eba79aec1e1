"""Knn: the nearest examples vote, the nearer the louder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.examples import ExampleIndex
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank

VOTERS = 10
SHARPNESS = 12.0  # a vote falls to 1/e over 0.08 of cosine


class Knn:
    """A route's score is its share of the votes times the similarity of its nearest voter: in [-1, 1]."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._index = ExampleIndex(routes)
        self._nearest = nearest

    def score(self, signals: Signals) -> Scores:
        question, index = signals.embedding.vector, self._index
        found = index.nearest(question, index.similarities(question), max(VOTERS, self._nearest))
        similarities = np.array(found.similarities[:VOTERS])
        voters = index.route_of[list(found.rows[:VOTERS])]
        votes = np.exp(SHARPNESS * (similarities - similarities[0]))
        share = np.bincount(voters, weights=votes / votes.sum(), minlength=len(index.names))
        closest = np.full(len(index.names), -1.0)
        np.maximum.at(closest, voters, similarities)
        ranked = rank(
            index.names,
            share * closest,
            index.thresholds,
            signals.asked_route,
            lambda i: (Term("votes", float(share[i])), Term("nearest_voter", float(closest[i]))),
        )
        return Scores(ranked, index.neighbours(found, self._nearest))
