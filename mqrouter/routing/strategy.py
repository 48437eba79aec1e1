"""What every strategy is given and what it must return. One file each, named in `registry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mqrouter.routing.decision import Scores
from mqrouter.routing.signals import Signals


@dataclass(frozen=True, slots=True)
class RouteExamples:
    """One route's examples and their embeddings."""

    examples: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    """(examples, dim), float32, unit length."""
    threshold: float


class Strategy(Protocol):
    """Pure after it is built: the same signals give the same scores."""

    def score(self, signals: Signals) -> Scores:
        """Returns every route's score, best first."""
        ...


class StrategyFactory(Protocol):
    def __call__(self, routes: Mapping[str, RouteExamples], *, nearest: int) -> Strategy: ...
