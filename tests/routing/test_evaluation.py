"""Strategies measured on questions they have not seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_training import labelled

from mqrouter.routing.evaluation import Outcomes, evaluate_gain, evaluate_intents
from mqrouter.routing.gain import forms_of
from mqrouter.routing.measured import SEES_MEANING


@pytest.mark.parametrize("strategy", SEES_MEANING)
def test_easy_questions_are_decided_well(strategy: str) -> None:
    ticks = itertools.count()
    report = evaluate_intents(
        strategy,
        labelled(examples=12),
        labelled(seed=1, none=40),
        seed=0,
        target_precision=0.9,
        clock=lambda: next(ticks) / 1000,
    )
    assert report.strategy == strategy
    assert report.decision_ms == pytest.approx(1.0)
    assert report.accuracy > 0.9 and report.macro_f1 > 0.9
    assert report.auroc is not None and report.auroc > 0.8
    assert report.precision is not None and report.precision >= 0.9
    assert report.taken <= report.coverage


def test_without_outside_questions_their_figures_are_none() -> None:
    report = evaluate_intents("semantic", labelled(), labelled(seed=1), seed=0, target_precision=0.9, clock=lambda: 0.0)
    assert (report.auroc, report.out_of_scope_recall, report.out_of_scope_abstained) == (None, None, None)


def outcomes(count: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = rng.integers(1, 40, count)
    gains = (vectors[:, 0] > 0.2).astype(float)
    return Outcomes(vectors, forms_of(["word " * int(n) for n in lengths]), lengths.astype(float), gains)


def test_rankings_stand_between_chance_and_the_oracle() -> None:
    _, reports = evaluate_gain(outcomes(400, 0), outcomes(400, 1), seed=0, rounds=40)
    found = {report.strategy: report for report in reports}
    assert set(found) == {"learned", "knn", "token", "random", "oracle"}
    assert found["oracle"].apgr.value >= found["learned"].apgr.value > found["random"].apgr.value
    assert found["learned"].above_length.low > 0
    assert found["token"].above_length.value == 0
    assert found["learned"].cpt_50.value < found["learned"].cpt_80.value
