"""Semantic scores: cosines with centroids, best first, explained by the nearest examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mqrouter.routing.decision import RouteScore, Scores
from mqrouter.routing.registry import strategy_factory
from mqrouter.routing.semantic import Semantic
from mqrouter.routing.signals import Embedding, Signals
from mqrouter.routing.strategy import RouteExamples, Strategy


def examples(name: str, vectors: Sequence[Sequence[float]], threshold: float = 0.3) -> RouteExamples:
    matrix = np.array(vectors, dtype=np.float32)
    return RouteExamples(tuple(f"{name} {i}" for i in range(len(vectors))), matrix, threshold)


def score(strategy: Strategy, vector: Sequence[float]) -> Scores:
    embedding = Embedding(np.array(vector, dtype=np.float32), tokens=3, is_cut=False)
    return strategy.score(Signals(10, 4, embedding, is_private=False, asked_route=None))


ROUTES = {
    "east": examples("east", [[1, 0, 0]], threshold=0.5),
    "north": examples("north", [[0, 1, 0]], threshold=-0.2),
    "flat": examples("flat", [[1, 0, 0], [0, 1, 0]]),
}


def test_scores_are_cosines_with_the_unit_mean() -> None:
    ranked = score(Semantic(ROUTES, nearest=0), [1, 0, 0]).ranked
    assert [(entry.route, round(entry.score, 4), entry.threshold) for entry in ranked] == [
        ("east", 1.0, 0.5),
        ("flat", 0.7071, 0.3),
        ("north", 0.0, -0.2),
    ]


def test_equal_scores_keep_the_configured_order() -> None:
    both = {"b": examples("b", [[1, 0]]), "a": examples("a", [[1, 0]]), "c": examples("c", [[0, 1]])}
    assert [entry.route for entry in score(Semantic(both, nearest=1), [1, 0]).ranked] == ["b", "a", "c"]


def test_examples_that_cancel_out_score_zero() -> None:
    found = score(Semantic({"odd": examples("odd", [[1, 0], [-1, 0]])}, nearest=0), [1, 0])
    assert found.ranked == (RouteScore("odd", 0.0, 0.3),)


@pytest.mark.parametrize(("nearest", "expected"), [(0, 0), (2, 2), (4, 4), (99, 4)])
def test_nearest_examples_come_best_first(nearest: int, expected: int) -> None:
    found = score(Semantic(ROUTES, nearest=nearest), [0.8, 0.6, 0]).nearest
    assert len(found) == expected
    similarities = [neighbour.similarity for neighbour in found]
    assert similarities == sorted(similarities, reverse=True)
    if found:
        assert found[0].route in ("east", "flat")
        assert found[0].example.startswith(found[0].route)


def test_opposite_question_scores_negative() -> None:
    assert score(Semantic(ROUTES, nearest=1), [-1, 0, 0]).ranked[-1] == RouteScore("east", -1.0, 0.5)


def test_unknown_strategy_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        strategy_factory("astrology")
