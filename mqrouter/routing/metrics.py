"""How good decisions are: every figure that the commands print, as pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mqrouter.routing.calibration import Bools, Floats
from mqrouter.routing.softmax import Labels

BINS = 15
KEPT = 0.95
INTERVAL = (2.5, 97.5)


def accuracy(chosen: Labels, truth: Labels) -> float:
    return float((chosen == truth).mean())


def macro_f1(chosen: Labels, truth: Labels) -> float:
    """Returns the mean F1 over the classes that occur in `truth`."""
    classes, counts = np.unique(truth, return_counts=True)
    right = np.array([((chosen == label) & (truth == label)).sum() for label in classes])
    claimed = np.array([(chosen == label).sum() for label in classes])
    return float((2 * right / (claimed + counts)).mean())


def auroc(inside: Floats, outside: Floats) -> float:
    """Returns the probability that one of `inside` scores above one of `outside`, ties counted half."""
    ranked = np.sort(outside)
    below = np.searchsorted(ranked, inside, side="left")
    not_above = np.searchsorted(ranked, inside, side="right")
    return float((below + not_above).mean() / (2 * len(ranked)))


def recall_at_kept(inside: Floats, outside: Floats, kept: float = KEPT) -> float:
    """Returns the share of `outside` below the score that keeps `kept` of `inside`."""
    return float((outside < np.quantile(inside, 1 - kept)).mean())


def calibration_error(confidence: Floats, is_right: Bools, bins: int = BINS) -> float:
    """Returns the expected calibration error over bins of equal width (Guo and others, 2017)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(index, weights=confidence - is_right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def gain_curve(score: Floats, gain: Floats) -> Floats:
    """Returns the share of the gain recovered by sending the k best-scored to the strong tier: (n + 1,), k from 0.

    Equal scores are sent as one would at random among them, so that a constant score is a straight line. Without a
    gain to recover all of it is nan.
    """
    total = float(gain.sum())
    if total <= 0:
        return np.full(len(gain) + 1, np.nan)
    order = np.argsort(-score, kind="stable")
    ordered = gain[order].astype(np.float64)
    _, groups, counts = np.unique(-score[order], return_inverse=True, return_counts=True)
    ordered = (np.bincount(groups, weights=ordered) / counts)[groups]
    curve: Floats = np.concatenate([[0.0], np.cumsum(ordered)]) / total
    return curve


def apgr(score: Floats, gain: Floats) -> float:
    """Returns the mean gap recovered over all shares of strong calls (RouteLLM, section 3): random is 0.5."""
    curve = gain_curve(score, gain)
    return float((curve[:-1] + curve[1:]).mean() / 2)


def cpt(score: Floats, gain: Floats, recovered: float) -> float:
    """Returns the least share of calls to the strong tier that recovers this much of the gap: CPT(x)."""
    curve = gain_curve(score, gain)
    if np.isnan(curve[0]):
        return float("nan")
    return float(np.argmax(curve >= recovered - 1e-12) / len(gain))


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


def bootstrap(
    figure: Callable[[Labels], float], examples: int, rng: np.random.Generator, rounds: int = 400
) -> Interval:
    """Returns a figure of all examples and its 95 % interval; `figure` takes the indices of a resample.

    Resamples whose figure does not exist, nan, are left out.
    """
    drawn = [found for _ in range(rounds) if not np.isnan(found := figure(rng.integers(0, examples, examples)))]
    if not drawn:
        drawn = [float("nan")]
    low, high = np.percentile(drawn, INTERVAL)
    return Interval(figure(np.arange(examples)), float(low), float(high))
