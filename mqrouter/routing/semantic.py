"""Semantic: cosine between the question and each route's centroid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mqrouter.routing.decision import Neighbour, RouteScore, Scores
from mqrouter.routing.signals import Signals, Vector
from mqrouter.routing.strategy import RouteExamples


class Semantic:
    """Scores are cosines in [-1, 1]; a centroid is the unit-length mean of its route's examples."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int) -> None:
        self._names = tuple(routes)
        self._thresholds = tuple(route.threshold for route in routes.values())
        self._centroids = np.stack([_centroid(route.vectors) for route in routes.values()])
        self._examples = tuple((text, name) for name, route in routes.items() for text in route.examples)
        self._vectors = np.concatenate([route.vectors for route in routes.values()])
        self._nearest = nearest

    def score(self, signals: Signals) -> Scores:
        question = signals.embedding.vector
        similarities = self._centroids @ question
        order = np.argsort(-similarities, kind="stable")
        ranked = tuple(RouteScore(self._names[i], float(similarities[i]), self._thresholds[i]) for i in order)
        return Scores(ranked, self._nearest_examples(question))

    def _nearest_examples(self, question: Vector) -> tuple[Neighbour, ...]:
        count = min(self._nearest, len(self._examples))
        if count == 0:
            return ()
        similarities = self._vectors @ question
        top = np.argpartition(-similarities, count - 1)[:count]
        top = top[np.argsort(-similarities[top], kind="stable")]
        return tuple(
            Neighbour(example, route, float(similarities[i])) for i in top for example, route in [self._examples[i]]
        )


def _centroid(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    unit: npt.NDArray[np.float32] = (mean / norm if norm > 0 else mean).astype(np.float32)
    return unit
