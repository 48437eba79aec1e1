"""What is known about a question before any strategy looks at it: computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

CHARS_PER_TOKEN = 4.0
TOKEN_BUFFER = 1.3  # no tokenizer here is the tier's own: 30 % of doubt


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
    """Of its recent answers, the wait for a turn included; None where there were none."""


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


def estimate_tokens(chars: int) -> int:
    """Returns a careful upper estimate of a text's tokens from its length in characters."""
    return math.ceil(chars / CHARS_PER_TOKEN * TOKEN_BUFFER)
