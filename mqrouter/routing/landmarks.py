"""Is the question of a kind anybody configured: a kernel classifier over a few landmarks per route.

Far from every landmark all its logits are small, so their log-sum-exp says "in scope" where a linear head, whose
logits grow without bound in every direction, is confident about anything (measured on CLINC150: AUROC 0.988 against
0.976 of the linear head's and 0.982 of the nearest centroid).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mqrouter.routing.softmax import Labels, Matrix, fit_softmax

MAX_LANDMARKS = 450
MAX_PER_ROUTE = 12
CLUSTER_ROUNDS = 6
SHARPNESS = 2.7  # of the kernel, in units of the mean distance between questions
STRENGTH = 30.0
SMALLEST_EIGENVALUE = 1e-5  # of the largest; below it is noise that float16 would blow up


@dataclass(frozen=True, slots=True)
class Landmarks:
    """logits = weights @ exp(gamma (points @ question - 1)) + bias"""

    points: Matrix
    """(landmarks, dim), unit length; each route's own centres."""
    weights: Matrix
    """(classes, landmarks)"""
    bias: Matrix
    """(classes,)"""
    gamma: float

    def logits(self, questions: Matrix) -> Matrix:
        """Returns (questions, classes) of (questions, dim), or (classes,) of (dim,)."""
        nearness = np.exp(np.float32(self.gamma) * (questions @ self.points.T - np.float32(1)))
        logits: Matrix = nearness @ self.weights.T + self.bias
        return logits


def fit_landmarks(vectors: Matrix, labels: Labels, classes: int, rng: np.random.Generator) -> Landmarks:
    """Returns the classifier learnt from unit vectors (examples, dim); every class has at least one example."""
    per_class = max(1, min(MAX_PER_ROUTE, MAX_LANDMARKS // classes))
    points = np.concatenate([centres(vectors[labels == label], per_class, rng) for label in range(classes)])
    gamma = SHARPNESS / max(0.05, 1 - _mean_cosine(vectors))
    whitening = _whitening(points, gamma)
    features = np.exp(np.float32(gamma) * (vectors @ points.T - np.float32(1))) @ whitening
    head = fit_softmax(features, labels, classes, strength=STRENGTH)
    head -= head.mean(axis=0)  # the classes' common level is free in a softmax, and not in a log-sum-exp
    return Landmarks(points, head[:, :-1] @ whitening.T, head[:, -1].copy(), gamma)


def centres(vectors: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Returns at most `count` unit-length centres of unit vectors: k-means on the sphere."""
    found = vectors[rng.permutation(len(vectors))[:count]].copy()
    for _ in range(CLUSTER_ROUNDS):
        nearest = (vectors @ found.T).argmax(axis=1)
        for index in np.unique(nearest):
            found[index] = unit(vectors[nearest == index].mean(axis=0))
    return found


def unit(vector: Matrix) -> Matrix:
    """Returns vectors at length 1 along the last axis; a zero vector stays."""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    scaled: Matrix = (vector / np.where(norm > 0, norm, 1)).astype(np.float32)
    return scaled


def _mean_cosine(vectors: Matrix) -> float:
    return float(np.square(vectors.mean(axis=0)).sum())


def _whitening(points: Matrix, gamma: float) -> Matrix:
    """Returns (landmarks, rank): kernel rows times it are Nystroem features with unit scale."""
    kernel = np.exp(gamma * (points.astype(np.float64) @ points.T - 1))
    values, axes = np.linalg.eigh(kernel)
    keep = values > SMALLEST_EIGENVALUE * values[-1]
    whitening: npt.NDArray[np.float32] = (axes[:, keep] / np.sqrt(values[keep])).astype(np.float32)
    return whitening
