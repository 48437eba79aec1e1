"""From a score to a probability: fitted on examples that the scorer has not seen, never on those it was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

NEWTON_STEPS = 50
PRIOR = 1.0  # a weak pull of the slopes to zero: perfectly separated examples would make them infinite
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Platt:
    """probability = sigmoid(slopes · standardised evidence + bias)"""

    slopes: tuple[float, ...]
    bias: float
    means: tuple[float, ...]
    spreads: tuple[float, ...]

    def __call__(self, *evidence: float) -> float:
        total = self.bias
        for value, slope, mean, spread in zip(evidence, self.slopes, self.means, self.spreads, strict=True):
            total += slope * (value - mean) / spread
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, total))))

    def many(self, evidence: Floats) -> Floats:
        """Returns (examples,) of evidence (examples, kinds)."""
        logits = (evidence - np.array(self.means)) / np.array(self.spreads) @ np.array(self.slopes) + self.bias
        probabilities: Floats = 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
        return probabilities


def fit_platt(evidence: Floats, is_right: Bools) -> Platt:
    """Returns the logistic calibration of evidence (examples, kinds), by Newton's method.

    The targets are Platt's (1999): a little off 0 and 1, by as much as the examples are few.
    """
    means, spreads = evidence.mean(axis=0), evidence.std(axis=0) + EDGE
    inputs = np.column_stack([(evidence - means) / spreads, np.ones(len(evidence))])
    right = int(is_right.sum())
    wrong = len(is_right) - right
    targets = np.where(is_right, (right + 1) / (right + 2), 1 / (wrong + 2))
    penalty = np.diag([PRIOR] * (inputs.shape[1] - 1) + [EDGE])
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -40, 40)))
        gradient = inputs.T @ (p - targets) + penalty @ weights
        step = np.linalg.solve(inputs.T @ (inputs * (p * (1 - p))[:, None]) + penalty, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 4)
        if float(np.abs(step).max()) < EDGE:
            break
    return Platt(tuple(weights[:-1].tolist()), float(weights[-1]), tuple(means.tolist()), tuple(spreads.tolist()))
