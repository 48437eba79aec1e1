"""The gain of the stronger tier: learnt where there is something to learn, left to the length where not."""

from __future__ import annotations

import numpy as np
import pytest

from mqrouter.routing.gain import fit_gain, form, forms_of, neighbour_gain
from mqrouter.routing.metrics import apgr


def questions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, forms_of(["word " * int(n) for n in rng.integers(1, 60, count)])


def test_gain_that_meaning_tells_is_learnt() -> None:
    (vectors, forms), (fresh, fresh_forms) = questions(800, 0), questions(800, 1)
    model = fit_gain(vectors, forms, (vectors[:, 0] > 0.1).astype(float), seed=0)
    assert model.trust > 0.9
    gains = (fresh[:, 0] > 0.1).astype(float)
    assert apgr(model.predict(fresh, fresh_forms), gains) > apgr(fresh_forms[:, 0], gains) + 0.1
    assert apgr(neighbour_gain(vectors, (vectors[:, 0] > 0.1).astype(float), fresh, 50), gains) > 0.6


def test_without_anything_to_learn_the_length_ranks() -> None:
    vectors, forms = questions(300, 2)
    gains = np.random.default_rng(12).choice([0.0, 1.0], 300)
    model = fit_gain(vectors, forms, gains, seed=0)
    assert model.trust == 0
    order = np.argsort(model.predict(vectors, forms), kind="stable")
    by_length = forms[order, 0] * np.sign(model.length_slope)
    assert (np.diff(by_length) >= -1e-12).all()


def test_same_seed_gives_the_same_regressor() -> None:
    vectors, forms = questions(120, 3)
    gains = (vectors[:, 1] > 0).astype(float)
    first, second = (fit_gain(vectors, forms, gains, seed=9) for _ in range(2))
    assert (first.slopes == second.slopes).all() and first.penalty == second.penalty


def test_few_and_gainless_outcomes_are_survived() -> None:
    vectors, forms = questions(6, 4)
    model = fit_gain(vectors, forms, np.zeros(6), seed=0)
    assert model.trust == 0
    assert model.predict(vectors, forms).tolist() == pytest.approx([0.0] * 6)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "x" * 100_000, "\ud800", "1 + 1 = 2?"])
def test_form_of_any_text_is_finite(text: str) -> None:
    assert np.isfinite(form(text)).all()
