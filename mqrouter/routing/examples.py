"""The configured examples as one matrix, searched route by route: first those whose centroids are near.

A product with 15,000 vectors reads 23 MB and takes longer than everything else in a decision; the nearest routes'
examples are a few hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mqrouter.routing.decision import Neighbour
from mqrouter.routing.landmarks import unit
from mqrouter.routing.signals import Vector
from mqrouter.routing.strategy import RouteExamples

Matrix = npt.NDArray[np.float32]

PROBED_EXAMPLES = 320
"""So many examples are compared at most, or those of three routes: less loses neighbours, more costs time."""
FEWEST_ROUTES, MOST_ROUTES = 3, 8
"""Each route is a product of its own, and twenty small ones cost more than one large."""


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest examples, best first."""

    rows: tuple[int, ...]
    similarities: tuple[float, ...]


class ExampleIndex:
    def __init__(self, routes: Mapping[str, RouteExamples]) -> None:
        self.names = tuple(routes)
        self.thresholds = tuple(route.threshold for route in routes.values())
        self.centroids = np.stack([unit(route.vectors.mean(axis=0)) for route in routes.values()])
        """(routes, dim), unit length."""
        self.route_of = np.repeat(np.arange(len(routes)), [len(route.examples) for route in routes.values()])
        """(examples,)"""
        self._texts = tuple(text for route in routes.values() for text in route.examples)
        self._vectors = _joined([route.vectors for route in routes.values()])
        self._bounds = np.concatenate([[0], np.cumsum([len(route.examples) for route in routes.values()])]).tolist()

    def similarities(self, question: Vector) -> Matrix:
        """Returns the cosines with the centroids, (routes,)."""
        found: Matrix = self.centroids @ question
        return found

    def nearest(self, question: Vector, similarities: Matrix, count: int) -> Found:
        """Returns the `count` nearest examples of the routes whose centroids are nearest."""
        count = min(count, len(self._texts))
        if count == 0:
            return Found((), ())
        if len(self._texts) <= PROBED_EXAMPLES:
            rows, near = np.arange(len(self._texts)), self._vectors @ question
        else:
            rows, near = self._probe(question, np.argsort(-similarities, kind="stable").tolist(), count)
        return _best(rows, near, count)

    def nearest_of(self, question: Vector, routes: Sequence[int], count: int) -> Found:
        """Returns the `count` nearest examples of these routes alone."""
        rows = np.concatenate([np.arange(self._bounds[route], self._bounds[route + 1]) for route in routes])
        near = np.concatenate([self._vectors[self._bounds[r] : self._bounds[r + 1]] @ question for r in routes])
        return _best(rows, near, count)

    def neighbours(self, found: Found, count: int) -> tuple[Neighbour, ...]:
        """Returns the first `count` of what was found, for an explanation."""
        return tuple(
            Neighbour(self._texts[row], self.names[self.route_of[row]], similarity)
            for row, similarity in zip(found.rows[:count], found.similarities[:count], strict=True)
        )

    def _probe(self, question: Vector, routes: Sequence[int], count: int) -> tuple[npt.NDArray[np.intp], Matrix]:
        """Returns rows and similarities of the first routes' examples: at least `count` of them."""
        rows: list[npt.NDArray[np.intp]] = []
        near: list[Matrix] = []
        seen = 0
        for number, route in enumerate(routes):
            low, high = self._bounds[route], self._bounds[route + 1]
            is_enough = number >= MOST_ROUTES or (number >= FEWEST_ROUTES and seen + high - low > PROBED_EXAMPLES)
            if seen >= count and is_enough:
                break
            rows.append(np.arange(low, high))
            near.append(self._vectors[low:high] @ question)
            seen += high - low
        return np.concatenate(rows), np.concatenate(near)


def _best(rows: npt.NDArray[np.intp], near: Matrix, count: int) -> Found:
    top = np.argsort(-near, kind="stable")[:count]
    return Found(tuple(rows[top].tolist()), tuple(near[top].tolist()))


def _joined(parts: Sequence[Matrix]) -> Matrix:
    """Returns the parts as one matrix: the one they were cut from where that is it, so that strategies share it."""
    whole = parts[0].base
    if isinstance(whole, np.ndarray) and whole.flags.c_contiguous and whole.ndim == 2:
        places, start = [part.__array_interface__["data"][0] for part in parts], whole.__array_interface__["data"][0]
        sizes = [part.nbytes for part in parts]
        wanted = np.cumsum([start, *sizes[:-1]]).tolist()
        is_cut_from_it = all(part.base is whole and part.flags.c_contiguous for part in parts)
        if is_cut_from_it and places == wanted and sum(sizes) == whole.nbytes:
            return whole
    return np.ascontiguousarray(np.concatenate(parts))
