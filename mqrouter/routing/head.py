"""The learned head: three small classifiers over one embedding and the question's words, each in the explanation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mqrouter.routing.calibration import Floats, Platt
from mqrouter.routing.decision import Scope
from mqrouter.routing.landmarks import Landmarks
from mqrouter.routing.lexical import WordWeights, buckets
from mqrouter.routing.signals import Vector
from mqrouter.routing.softmax import Matrix, apply, log_sum_exp, softmax

EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class HeadScores:
    """All arrays are (routes,), in the head's order."""

    meaning: Floats
    """Logits of the linear head."""
    words: Floats
    """Weighed evidence of the words; added to the former."""
    probabilities: Floats
    """With the best at its calibrated confidence and the others below it; what is missing to 1 is "none of these"."""
    best: int
    scope: Scope

    @property
    def confidence(self) -> float:
        return float(self.probabilities[self.best])


@dataclass(frozen=True, slots=True)
class Head:
    routes: tuple[str, ...]
    linear: Matrix
    """(routes, dim + 1), the last column the bias."""
    words: WordWeights
    word_weight: float
    landmarks: Landmarks
    """Of the routes, and of one class more where examples of no route were given."""
    confidence: Platt
    """Takes the log odds of the best route and the scope score."""
    none_weight: float
    """Of the class of examples of no route, in the scope score."""
    scope_threshold: float
    thresholds: tuple[float, ...]
    """(routes,) least confidence."""

    def score(self, question: Vector, text: str) -> HeadScores:
        meaning = apply(self.linear, question)
        words = np.float32(self.word_weight) * self.words.score(buckets(text))
        probabilities = softmax(meaning + words)
        best = int(probabilities.argmax())
        near, none = scope_evidence(self.landmarks.logits(question), len(self.routes))
        scope = float(near - self.none_weight * none)
        likely = float(probabilities[best])
        confidence = self.confidence(_log_odds(likely), scope)
        probabilities *= _shrink(likely, confidence)
        probabilities[best] = confidence
        return HeadScores(meaning, words, probabilities, best, Scope(scope, self.scope_threshold))


def _shrink(best: float, confidence: float) -> float:
    """Returns the factor of the other routes' probabilities: their order stays, and the sum does not pass 1."""
    if confidence <= best:
        return confidence / best
    return (1 - confidence) / (1 - best) if best < 1 else 0.0


def _log_odds(probability: float) -> float:
    """Returns what `log_odds` does, of one: numpy takes ten times as long for it."""
    p = min(max(probability, EDGE), 1 - EDGE)
    return math.log(p / (1 - p))


def log_odds(probability: Floats) -> Floats:
    """Returns log(p / (1 - p)), with p kept off 0 and 1 by what float32 can tell."""
    p = np.clip(probability, EDGE, 1 - EDGE)
    odds: Floats = np.log(p / (1 - p))
    return odds


def scope_evidence(logits: Floats, routes: int) -> tuple[Floats, Floats]:
    """Returns how near something configured is, and how near what belongs to no route, each (...).

    `logits` are (..., routes), or (..., routes + 1) where examples of no route were given; without, the second is 0.
    """
    near = log_sum_exp(logits[..., :routes])
    return near, np.zeros_like(near) if logits.shape[-1] == routes else logits[..., routes]
