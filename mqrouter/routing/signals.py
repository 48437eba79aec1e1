"""What is known about a question before any strategy looks at it: computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mqrouter.core.lengths import estimate_tokens as estimate_tokens
from mqrouter.core.spending import Over

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedding:
    vector: Vector
    """(dim,), float32, unit length."""
    tokens: int
    is_cut: bool
    """True where the question was longer than the model reads and its end was left out."""


@dataclass(frozen=True, slots=True)
class TierSignal:
    """How a tier is doing."""

    is_up: bool
    latency_ms: float | None
    """Of its recent answers; None where there were none."""
    over: Over | None = None
    """The limit of its own that it is at."""


@dataclass(frozen=True, slots=True)
class Signals:
    chars: int
    estimated_tokens: int
    embedding: Embedding
    is_private: bool
    asked_route: str | None
    """The route whose score is wanted whatever its rank: the one the requester named, or the session's."""
    text: str = ""
    tiers: Mapping[str, TierSignal] = field(default_factory=dict)
