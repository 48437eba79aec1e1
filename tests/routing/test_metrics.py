"""The figures that decisions are judged by, against their definitions and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mqrouter.routing import metrics

GRID = st.integers(-8, 8).map(float)
SCORES = arrays(np.float64, st.integers(1, 30), elements=GRID)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(inside: np.ndarray, outside: np.ndarray) -> None:
    pairs = inside[:, None] - outside[None, :]
    assert metrics.auroc(inside, outside) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)


@given(SCORES, SCORES)
def test_auroc_of_swapped_sides_is_the_rest(inside: np.ndarray, outside: np.ndarray) -> None:
    assert metrics.auroc(inside, outside) + metrics.auroc(outside, inside) == pytest.approx(1)


@given(SCORES, SCORES)
def test_ranks_alone_matter(inside: np.ndarray, outside: np.ndarray) -> None:
    assert metrics.auroc(inside, outside) == pytest.approx(metrics.auroc(np.exp(inside), np.exp(outside)))


def test_recall_is_taken_where_the_share_is_kept() -> None:
    inside = np.arange(100.0)
    assert metrics.recall_at_kept(inside, np.array([-1.0, 4.0, 50.0, 99.0])) == 0.5


def test_macro_f1_by_hand() -> None:
    truth, chosen = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert metrics.macro_f1(chosen, truth) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.accuracy(chosen, truth) == 0.75


@given(st.floats(0, 1), st.integers(1, 50))
def test_calibration_error_of_one_confidence_is_its_distance_from_the_truth(confidence: float, count: int) -> None:
    is_right = np.arange(count) % 2 == 0
    error = metrics.calibration_error(np.full(count, confidence), is_right)
    assert error == pytest.approx(abs(confidence - is_right.mean()), abs=1e-9)


GAINS = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=40).filter(lambda gains: sum(gains) > 0)


@given(GAINS)
def test_constant_score_recovers_as_chance_does(gains: list[float]) -> None:
    assert metrics.apgr(np.zeros(len(gains)), np.array(gains)) == pytest.approx(0.5)
    assert metrics.cpt(np.zeros(len(gains)), np.array(gains), 0.5) == pytest.approx(0.5, abs=1 / len(gains))


@given(GAINS, st.randoms(use_true_random=False))
def test_no_score_beats_the_gain_itself(gains: list[float], random: object) -> None:
    gain = np.array(gains)
    score = np.random.default_rng(len(gains)).normal(size=len(gain))
    assert metrics.apgr(score, gain) <= metrics.apgr(gain, gain) + 1e-12
    assert metrics.cpt(gain, gain, 0.8) <= metrics.cpt(score, gain, 0.8)


@given(GAINS)
def test_reversed_score_mirrors_the_area(gains: list[float]) -> None:
    gain, score = np.array(gains), np.arange(len(gains), dtype=float)
    assert metrics.apgr(score, gain) + metrics.apgr(-score, gain) == pytest.approx(1)


def test_cpt_is_the_least_share_of_calls() -> None:
    gain = np.array([0.0, 1.0, 0.0, 1.0])
    assert metrics.cpt(gain, gain, 0.5) == 0.25
    assert metrics.cpt(-gain, gain, 0.8) == 1.0


def test_bootstrap_interval_holds_the_value_and_follows_the_seed() -> None:
    sample = np.random.default_rng(0).normal(size=300)

    def mean(index: np.ndarray) -> float:
        return float(sample[index].mean())

    first = metrics.bootstrap(mean, 300, np.random.default_rng(5))
    assert first == metrics.bootstrap(mean, 300, np.random.default_rng(5))
    assert first.low < first.value < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 / 300**0.5, rel=0.2)
