"""From scores to probabilities and thresholds that keep a promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.routing.calibration import fit_platt
from mqrouter.routing.metrics import calibration_error
from mqrouter.routing.thresholds import NEVER, pooled_threshold, route_thresholds


def outcomes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(count, 2))
    chance = 1 / (1 + np.exp(-(1.5 * evidence[:, 0] - 0.5 * evidence[:, 1] + 1)))
    return evidence, rng.random(count) < chance


def test_platt_is_calibrated_on_fresh_examples() -> None:
    platt = fit_platt(*outcomes(4000))
    evidence, is_right = outcomes(4000, seed=1)
    assert calibration_error(platt.many(evidence), is_right) < 0.03
    assert platt(*evidence[7].tolist()) == pytest.approx(float(platt.many(evidence)[7]))


@pytest.mark.parametrize("share", [0, 1])
def test_platt_of_one_sided_outcomes_stays_off_the_ends(share: int) -> None:
    evidence, _ = outcomes(20)
    found = fit_platt(evidence, np.full(20, bool(share))).many(evidence)
    assert np.isfinite(found).all()
    assert ((found > 0) & (found < 1)).all()
    assert abs(found.mean() - share) < 0.1


def test_platt_survives_evidence_that_never_varies() -> None:
    platt = fit_platt(np.ones((10, 2)), np.arange(10) < 8)
    assert platt(1.0, 1.0) == pytest.approx(0.75, abs=0.06)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=50), st.floats(0, 1))
def test_pooled_threshold_keeps_its_promise(pairs: list[tuple[int, bool]], target: float) -> None:
    confidence = np.array([score / 10 for score, _ in pairs])
    is_right = np.array([right for _, right in pairs])
    threshold = pooled_threshold(confidence, is_right, target)
    kept = confidence >= threshold
    if threshold == NEVER:
        assert not kept.any()
    else:
        assert is_right[kept].mean() >= target


def test_zero_is_the_threshold_where_all_may_be_kept() -> None:
    assert pooled_threshold(np.array([0.2, 0.9]), np.array([True, True]), 0.95) == 0.0


def test_bad_route_is_kept_less_than_a_good_one() -> None:
    rng = np.random.default_rng(2)
    confidence, chosen = rng.random(2000), np.arange(2000) % 2
    chance = np.where(chosen == 0, 0.98, np.clip(confidence * 1.05, 0, 1))
    kept = route_thresholds(confidence, chosen, rng.random(2000) < chance, 3, 0.9)
    assert kept[0].threshold < kept[1].threshold
    assert kept[1].precision is not None and kept[1].precision == pytest.approx(0.9, abs=0.03)
    assert (kept[2].examples, kept[2].coverage, kept[2].precision) == (0, 0.0, None)
