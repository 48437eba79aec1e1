"""From labelled vectors to a head: everything it states about itself comes from examples held out of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mqrouter.routing.calibration import Bools, Floats, Platt, fit_platt
from mqrouter.routing.head import Head, log_odds, scope_evidence
from mqrouter.routing.landmarks import Landmarks, fit_landmarks
from mqrouter.routing.lexical import WordWeights, buckets, fit_words
from mqrouter.routing.metrics import auroc
from mqrouter.routing.softmax import Labels, Matrix, apply, fit_softmax, softmax
from mqrouter.routing.thresholds import Kept, route_thresholds

NONE = -1
"""The label of an example that belongs to no route."""

STRENGTH = 30.0
WORD_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
NONE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
FOLDS_OF_FEW, FOLDS_OF_MANY, MANY = 10, 5, 4000
"""With ten examples a route, a fold less of them already costs accuracy: more folds say more about the whole."""

Buckets = npt.NDArray[np.intp]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Examples and their labels."""

    texts: tuple[str, ...]
    vectors: Matrix
    """(examples, dim), float32, unit length."""
    labels: Labels
    """(examples,), indices into `routes`, or NONE."""
    routes: tuple[str, ...]
    also: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Further routes that are as right, by the number of the example."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What heads said about examples they were not trained on, in the order of the examples."""

    chosen: Labels
    is_right: Bools
    confidence: Floats
    scope: Floats


@dataclass(frozen=True, slots=True)
class Trained:
    head: Head
    held_out: HeldOut
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class _Parts:
    linear: Matrix
    words: WordWeights
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Held out: `linear` and `words` are (examples, routes), `near` and `none` are (examples,)."""

    linear: Matrix
    words: Matrix
    near: Floats
    none: Floats


def train(
    data: Labelled,
    *,
    further: Labelled | None = None,
    seed: int,
    target_precision: float = 0.95,
    kept_in_scope: float = 0.95,
    progress: Progress = lambda done, total: None,
) -> Trained:
    """Returns the head, and what cross-validation says about it. The same seed gives the same head.

    `further` examples, of the same routes, are learnt from in every fold and held out of none: what is stated about
    the head is about `data` alone, whatever came with it, and of the same folds.

    Raises ValueError where a route has fewer than two examples: nothing could be held out of them.
    """
    counts = np.bincount(data.labels[data.labels != NONE], minlength=len(data.routes))
    if len(data.routes) < 2 or counts.min() < 2:
        raise ValueError("two routes with two examples each are the least that can be learnt from")
    rng = np.random.default_rng(seed)
    everything = data if further is None else _joined(data, further)
    found = [buckets(text) for text in everything.texts]
    outputs = _held_out_outputs(data, everything, found, rng, progress)
    word_weight = _word_weight(outputs, data.labels)
    logits = outputs.linear + np.float32(word_weight) * outputs.words
    in_scope = data.labels != NONE
    none_weight = _none_weight(outputs, in_scope)
    scope = outputs.near - none_weight * outputs.none
    confidence, held_out = _calibrated(logits, scope, data.labels)
    kept = route_thresholds(held_out.confidence, held_out.chosen, held_out.is_right, len(data.routes), target_precision)
    parts = _fit(everything, found, np.arange(len(found)), rng)
    head = Head(
        routes=data.routes,
        linear=parts.linear,
        words=parts.words,
        word_weight=word_weight,
        landmarks=parts.landmarks,
        confidence=confidence,
        none_weight=none_weight,
        scope_threshold=float(np.quantile(scope[in_scope], 1 - kept_in_scope)),
        thresholds=tuple(entry.threshold for entry in kept),
    )
    return Trained(head, held_out, kept)


def _joined(data: Labelled, further: Labelled) -> Labelled:
    """Returns the examples of both, those of `data` first."""
    labels = np.concatenate([data.labels, further.labels])
    return Labelled(data.texts + further.texts, np.concatenate([data.vectors, further.vectors]), labels, data.routes)


def folds(labels: Labels, count: int, rng: np.random.Generator) -> Labels:
    """Returns each example's fold, (examples,): every label is spread over all folds as evenly as can be."""
    fold = np.empty(len(labels), dtype=np.intp)
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        fold[mine] = (np.arange(len(mine)) + rng.integers(count)) % count
    return fold


def _held_out_outputs(
    data: Labelled, everything: Labelled, found: Sequence[Buckets], rng: np.random.Generator, progress: Progress
) -> _Outputs:
    """Returns what is said of `data`, with which `everything` and `found` begin."""
    routes, examples = len(data.routes), len(data.labels)
    count = FOLDS_OF_MANY if examples >= MANY else FOLDS_OF_FEW
    fold = folds(data.labels, min(count, _smallest(data.labels)), rng)
    used = np.unique(fold)
    rest = np.arange(examples, len(found))
    outputs = _Outputs(
        np.zeros((examples, routes), dtype=np.float32),
        np.zeros((examples, routes), dtype=np.float32),
        np.zeros(examples, dtype=np.float32),
        np.zeros(examples, dtype=np.float32),
    )
    for number in used:
        progress(int(number), len(used) + 1)
        out = np.flatnonzero(fold == number)
        parts = _fit(everything, found, np.concatenate([np.flatnonzero(fold != number), rest]), rng)
        outputs.linear[out] = apply(parts.linear, data.vectors[out])
        outputs.words[out] = np.stack([parts.words.score(found[index]) for index in out.tolist()])
        outputs.near[out], outputs.none[out] = scope_evidence(parts.landmarks.logits(data.vectors[out]), routes)
    progress(len(used), len(used) + 1)
    return outputs


def _smallest(labels: Labels) -> int:
    """Returns the size of the smallest class, at least 2: no class may be missing from a fold's training examples."""
    return max(2, int(np.unique(labels, return_counts=True)[1].min()))


def _fit(data: Labelled, found: Sequence[Buckets], use: Labels, rng: np.random.Generator) -> _Parts:
    routes = len(data.routes)
    inside = use[data.labels[use] != NONE]
    vectors, labels = data.vectors[inside], data.labels[inside]
    linear = fit_softmax(vectors, labels, routes, strength=STRENGTH)
    words = fit_words([found[index] for index in inside.tolist()], labels, routes)
    all_labels = np.where(data.labels[use] == NONE, routes, data.labels[use])
    classes = routes + int(len(inside) < len(use))
    return _Parts(linear, words, fit_landmarks(data.vectors[use], all_labels, classes, rng))


def _word_weight(outputs: _Outputs, labels: Labels) -> float:
    """Returns the largest weight of the words whose held-out accuracy is within a standard error of the best.

    Examples held out come from the same hands as those learnt from, and flatter the embedding: on questions by other
    hands the words are worth more (farm questions: accuracy 0.91 at weight 0.5, 0.88 at the held-out optimum of 0.2).
    """
    inside = labels != NONE
    linear, words, truth = outputs.linear[inside], outputs.words[inside], labels[inside]
    found = [float(((linear + np.float32(w) * words).argmax(axis=1) == truth).mean()) for w in WORD_WEIGHTS]
    best = max(found)
    error = (best * (1 - best) / len(truth)) ** 0.5
    return max(w for w, accuracy in zip(WORD_WEIGHTS, found, strict=True) if accuracy >= best - error)


def _none_weight(outputs: _Outputs, in_scope: Bools) -> float:
    """Returns the weight of "none of these" that tells the held-out examples of no route best from the others.

    A few such examples among many routes say little about what else there is: on CLINC150, 0.1 raises the AUROC from
    0.984 to 0.985 and 0.5 lowers it to 0.975; farm questions want 1.
    """
    if in_scope.all():
        return 0.0
    scores = [outputs.near - weight * outputs.none for weight in NONE_WEIGHTS]
    found = [auroc(score[in_scope], score[~in_scope]) for score in scores]
    return NONE_WEIGHTS[int(np.argmax(found))]


def _calibrated(logits: Matrix, scope: Floats, labels: Labels) -> tuple[Platt, HeldOut]:
    probabilities = softmax(logits)
    chosen = probabilities.argmax(axis=1)
    evidence = np.column_stack([log_odds(probabilities.max(axis=1)), scope])
    is_right: Bools = chosen == labels
    platt = fit_platt(evidence, is_right)
    return platt, HeldOut(chosen, is_right, platt.many(evidence), scope)
