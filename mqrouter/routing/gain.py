"""When is the stronger tier worth it: its gain, learnt from outcomes by what knows when it knows nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mqrouter.routing.calibration import Floats
from mqrouter.routing.metrics import apgr
from mqrouter.routing.softmax import Labels

PENALTIES = (10.0, 30.0, 100.0)
FORM_WEIGHT = 0.1
"""Of a standardised trait of form, against a unit-length embedding."""
FARTHEST = 3.0  # standard deviations a trait may stand off: one odd question must not rule
FOLDS, REPEATS = 5, 3
MAX_CHARS = 8_000

_NUMBER = re.compile(r"\d+")
_SENTENCE_END = re.compile(r"[.!?]+")
_SYMBOLS = frozenset("+-*/=^$\\{}()<>|_%")
_NEGATIONS = frozenset({"not", "NOT", "except", "EXCEPT", "no", "never"})


def form(text: str) -> Floats:
    """Returns the traits of a text's form that cost nothing to count: (traits,), the first its length."""
    text = text[:MAX_CHARS]
    words = text.split()
    chars, count = max(1, len(text)), max(1, len(words))
    numbers = len(_NUMBER.findall(text))
    return np.array(
        [
            np.log1p(len(text)),
            len(text) / 1000,
            np.log1p(len(words)),
            chars / count,
            np.log1p(numbers),
            numbers / count,
            np.log1p(text.count("\n")),
            np.log1p(sum(char in _SYMBOLS for char in text)),
            sum(map(str.isupper, text)) / chars,
            np.log1p(len(_SENTENCE_END.split(text))),
            float(not _NEGATIONS.isdisjoint(words)),
            np.log1p(len(set(words))),
            len(set(words)) / count,
            np.log1p(text.count(",")),
        ]
    )


@dataclass(frozen=True, slots=True)
class GainRegressor:
    """gain = slopes · (embedding, form) + bias, mixed with what the length alone predicts.

    `trust` nears 1 the clearer cross-validation found the embedding and the form worth more than the length; it is 0
    where it did not, and then the length alone ranks the questions.
    """

    slopes: Floats
    """(dim + traits,)"""
    bias: float
    means: Floats
    """(traits,)"""
    spreads: Floats
    """(traits,)"""
    length_slope: float
    length_bias: float
    trust: float
    penalty: float
    gained: float
    """Held-out APGR above that of the length alone."""
    gained_error: float
    """Standard error of `gained`."""

    def predict(self, vectors: Floats, forms: Floats) -> Floats:
        """Returns the expected gain, (questions,), of vectors (questions, dim) and forms (questions, traits)."""
        learnt = _inputs(vectors, forms, self.means, self.spreads) @ self.slopes + self.bias
        length = self.length_slope * forms[:, 0] + self.length_bias
        return self.trust * learnt + (1 - self.trust) * length


def fit_gain(vectors: Floats, forms: Floats, gains: Floats, *, seed: int) -> GainRegressor:
    """Returns the regressor of gains (examples,), in [-1, 1]: what the strong tier got right more than the weak one.

    Penalty and trust come from repeated cross-validation; trust is the positive part of 1 - (error / gained)^2, as
    James and Stein shrink an estimate. The error allows for folds that share examples (Nadeau and Bengio, 2003).
    """
    rng = np.random.default_rng(seed)
    won = _cross_validated(vectors, forms, gains, rng)
    means = won.mean(axis=1)
    best = int(means.argmax())
    gained = float(means[best])
    error = float(won[best].std(ddof=1)) * (1 / won.shape[1] + 1 / (FOLDS - 1)) ** 0.5
    trust = max(0.0, 1 - (error / gained) ** 2) if gained > 0 else 0.0
    return _fit(vectors, forms, gains, PENALTIES[best], trust, gained, error)


def _cross_validated(vectors: Floats, forms: Floats, gains: Floats, rng: np.random.Generator) -> Floats:
    """Returns (penalties, folds): each fold's APGR above that of the length fitted on the same examples."""
    won: list[list[float]] = [[] for _ in PENALTIES]
    for _ in range(REPEATS):
        order = rng.permutation(len(gains))
        for fold in range(FOLDS):
            out, use = order[fold::FOLDS], np.delete(order, np.s_[fold::FOLDS])
            if gains[out].sum() <= 0 or len(out) < 2:
                continue
            for index, penalty in enumerate(PENALTIES):
                model = _fit(vectors[use], forms[use], gains[use], penalty, 1.0, 0.0, 0.0)
                won[index].append(_lead(model, vectors[out], forms[out], gains[out]))
    return np.array([row if len(row) > 1 else [0.0, 0.0] for row in won])


def _lead(model: GainRegressor, vectors: Floats, forms: Floats, gains: Floats) -> float:
    return apgr(model.predict(vectors, forms), gains) - apgr(model.length_slope * forms[:, 0], gains)


def _fit(
    vectors: Floats, forms: Floats, gains: Floats, penalty: float, trust: float, gained: float, error: float
) -> GainRegressor:
    means, spreads = forms.mean(axis=0), forms.std(axis=0) + 1e-9
    inputs = _inputs(vectors, forms, means, spreads)
    slopes, bias = _ridge(inputs, gains, penalty)
    length, length_bias = _ridge(forms[:, :1], gains, 1.0)
    return GainRegressor(slopes, bias, means, spreads, float(length[0]), length_bias, trust, penalty, gained, error)


def _inputs(vectors: Floats, forms: Floats, means: Floats, spreads: Floats) -> Floats:
    standard = np.clip((forms - means) / spreads, -FARTHEST, FARTHEST)
    return np.hstack([vectors, FORM_WEIGHT * standard])


def _ridge(inputs: Floats, targets: Floats, penalty: float) -> tuple[Floats, float]:
    """Returns slopes and bias of the least squares with an L2 penalty on the slopes."""
    centre, mean = inputs.mean(axis=0), float(targets.mean())
    moved = (inputs - centre).astype(np.float64)
    slopes = np.linalg.solve(moved.T @ moved + penalty * np.eye(moved.shape[1]), moved.T @ (targets - mean))
    return slopes, mean - float(centre @ slopes)


def neighbour_gain(vectors: Floats, gains: Floats, questions: Floats, count: int = 200) -> Floats:
    """Returns each question's mean gain over its nearest examples, near ones counting more: the `knn` of gains."""
    found = np.empty(len(questions))
    count = min(count, len(gains))
    for index, question in enumerate(questions):
        similarity = vectors @ question
        top: Labels = np.argpartition(-similarity, count - 1)[:count]
        weights = np.exp(10 * (similarity[top] - similarity[top].max()))
        found[index] = (weights * gains[top]).sum() / weights.sum()
    return found


def forms_of(texts: Sequence[str]) -> Floats:
    """Returns (texts, traits)."""
    return np.stack([form(text) for text in texts])
