"""What every strategy is given and what it must return. One file each, named in `registry`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mqrouter.routing.decision import RouteScore, Scores, Term
from mqrouter.routing.head import Head
from mqrouter.routing.signals import Signals

RANKED = 3
"""Routes in a strategy's answer: a decision needs two, its explanation shows three, and each costs microseconds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes the `heuristic` think of a route, each word or pattern worth `weight`."""

    words: tuple[str, ...] = ()
    """Whole words, or beginnings written with a final *."""
    patterns: tuple[str, ...] = ()
    """Text in which * stands for anything without a space and # for a number."""
    weight: float = 0.5


@dataclass(frozen=True, slots=True)
class RouteExamples:
    """One route: its examples, their embeddings, and where its questions go."""

    examples: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    """(examples, dim), float32, unit length."""
    threshold: float
    to: tuple[str, ...] = ()
    """Tiers in order of preference."""
    rule: Rule = Rule()


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the hybrid's S = tokens · C_tokens + centroid · Sim_centroid + latency · H_latency."""

    tokens: float = 0.2
    centroid: float = 0.7
    latency: float = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What a strategy may need beyond the routes; each takes what it knows."""

    head: Head | None = None
    """Of `learned`."""
    weights: Weights = field(default_factory=Weights)
    tiers: tuple[str, ...] = ()
    """Every tier, the weakest first."""
    long_tokens: int = 400
    """Estimated tokens from which on a question counts as long as can be."""
    slow_ms: float = 2_000.0
    """Latency that halves a tier's worth."""
    first: str = "semantic"
    """The strategy that picks the route in a cascade."""
    min_answer_confidence: float = 0.5
    """Least confidence of a local answer that a cascade keeps."""


DEFAULTS = Options()


class Strategy(Protocol):
    """Pure after it is built: the same signals give the same scores."""

    def score(self, signals: Signals) -> Scores:
        """Returns the scores of the best routes, best first, and of the asked one."""
        ...


class StrategyFactory(Protocol):
    def __call__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> Strategy:
        """Raises ValueError where the options lack what this strategy cannot do without."""
        ...


def rank(
    names: Sequence[str],
    scores: npt.NDArray[np.floating[Any]],
    thresholds: Sequence[float],
    asked: str | None,
    terms: Callable[[int], tuple[Term, ...]] = lambda index: (),
) -> tuple[RouteScore, ...]:
    """Returns the best RANKED routes, equals in the configured order, then the asked one if it is not among them."""
    chosen = np.argsort(-scores, kind="stable")[:RANKED].tolist()
    if asked is not None and asked in names and (index := names.index(asked)) not in chosen:
        chosen.append(index)
    return tuple(RouteScore(names[i], float(scores[i]), thresholds[i], terms(i)) for i in chosen)
