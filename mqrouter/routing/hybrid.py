"""Hybrid: S = w1 · C_tokens + w2 · Sim_centroid + w3 · H_latency, the weights from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.examples import ExampleIndex
from mqrouter.routing.perf import Perf
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, rank
from mqrouter.routing.token import Token


class Hybrid:
    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._index = ExampleIndex(routes)
        self._token = Token(routes, nearest=0, options=options)
        self._perf = Perf(routes, nearest=0, options=options)
        self._weights = options.weights
        self._nearest = nearest

    def score(self, signals: Signals) -> Scores:
        question, index, weights = signals.embedding.vector, self._index, self._weights
        similarities = index.similarities(question)
        tokens, (latency, _) = self._token.fit(signals), self._perf.worth(signals)
        total = weights.tokens * tokens + weights.centroid * similarities + weights.latency * latency
        ranked = rank(
            index.names,
            total,
            index.thresholds,
            signals.asked_route,
            lambda i: (
                Term("C_tokens", float(tokens[i]), weights.tokens),
                Term("Sim_centroid", float(similarities[i]), weights.centroid),
                Term("H_latency", float(latency[i]), weights.latency),
            ),
        )
        found = index.nearest(question, similarities, self._nearest)
        return Scores(ranked, index.neighbours(found, self._nearest))
