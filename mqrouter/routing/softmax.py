"""Multinomial logistic regression, fitted by L-BFGS: numpy alone, the same result on every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]
Objective = Callable[[Matrix], tuple[float, Matrix]]

MEMORY = 10
RELATIVE_GAIN = 1e-6
MIN_STEP = 1e-10
ARMIJO = 1e-4


def softmax(logits: Floats) -> Floats:
    """Returns probabilities along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return probabilities


def log_sum_exp(logits: Floats) -> Floats:
    """Returns the log of the summed exponentials along the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    total: Floats = top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1))
    return total


def fit_softmax(inputs: Matrix, labels: Labels, classes: int, *, strength: float, iterations: int = 60) -> Matrix:
    """Returns weights (classes, dim + 1), the last column the bias.

    `inputs` is (examples, dim), float32. `strength` is the inverse of the L2 penalty over all examples together
    (scikit-learn's C); the bias is not penalised.
    """
    count, dim = inputs.shape
    rows = np.arange(count)
    penalty = np.float32(1 / (strength * count))

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        weights = flat.reshape(classes, dim + 1)
        logits = inputs @ weights[:, :dim].T + weights[:, dim]
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[rows, labels]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        loss = float((np.log(total) - chosen).mean() + 0.5 * penalty * np.square(weights[:, :dim]).sum())
        logits /= total[:, None]
        logits[rows, labels] -= 1
        logits /= count
        gradient = np.empty_like(weights)
        gradient[:, :dim] = logits.T @ inputs + penalty * weights[:, :dim]
        gradient[:, dim] = logits.sum(axis=0)
        return loss, gradient.ravel()

    return minimise(objective, np.zeros(classes * (dim + 1), dtype=np.float32), iterations).reshape(classes, dim + 1)


def apply(weights: Matrix, inputs: Matrix) -> Matrix:
    """Returns logits (examples, classes) of inputs (examples, dim), or (classes,) of one input (dim,)."""
    logits: Matrix = inputs @ weights[:, :-1].T + weights[:, -1]
    return logits


def minimise(objective: Objective, start: Matrix, iterations: int) -> Matrix:
    """Returns the point L-BFGS reaches (Nocedal and Wright, algorithm 7.5, with backtracking)."""
    point, (value, gradient) = start, objective(start)
    moves: list[tuple[Matrix, Matrix, float]] = []
    for _ in range(iterations):
        direction = _two_loops(gradient, moves)
        step = 1.0 if moves else min(1.0, 1 / (float(np.abs(gradient).sum()) + 1e-12))
        slope = float(gradient @ direction)
        if slope <= 0:
            break
        while True:
            reached = point - np.float32(step) * direction
            reached_value, reached_gradient = objective(reached)
            if reached_value <= value - ARMIJO * step * slope or step < MIN_STEP:
                break
            step /= 2
        change, bend = reached - point, reached_gradient - gradient
        curvature = float(change @ bend)
        if curvature > 1e-12:
            moves = [*moves[1 - MEMORY :], (change, bend, 1 / curvature)]
        gained = value - reached_value
        point, value, gradient = reached, reached_value, reached_gradient
        if gained < RELATIVE_GAIN * max(1.0, abs(value)):
            break
    return point


def _two_loops(gradient: Matrix, moves: list[tuple[Matrix, Matrix, float]]) -> Matrix:
    """Returns the inverse Hessian's estimate times the gradient."""
    direction = gradient.copy()
    shares: list[float] = []
    for change, bend, inverse in reversed(moves):
        share = inverse * float(change @ direction)
        shares.append(share)
        direction -= np.float32(share) * bend
    if moves:
        _, bend, inverse = moves[-1]
        direction *= np.float32(1 / (inverse * float(bend @ bend)))
    for (change, bend, inverse), share in zip(moves, reversed(shares), strict=True):
        direction += np.float32(share - inverse * float(bend @ direction)) * change
    return direction
