"""Confidence in a local answer: calibrated on verdicts, for the one model file they are about."""

from __future__ import annotations

import json
import math

import pytest

from mqrouter.core.answer_signals import Evidence
from mqrouter.core.feedback import JudgedAnswer, Source, outcomes_of
from mqrouter.core.request import RequestId
from mqrouter.routing.answer_confidence import calibrate, confidence_of, dump, load
from mqrouter.routing.artefact import ArtefactError


def verdicts(count: int, *, model: str = "m:1", source: Source = Source.OPERATOR) -> list[JudgedAnswer]:
    """Answers the model was surer of are good, but for every fifth."""
    found = []
    for n in range(count):
        is_sure = n % 2 == 0
        is_good = is_sure != (n % 10 == 9)
        request_id = RequestId(f"{model}{n}")
        found.append(JudgedAnswer(request_id, "d1", source, is_good, model, evidence(-0.2 if is_sure else -1.5, n)))
    return found


def evidence(mean: float, jitter: int = 0) -> Evidence:
    return Evidence(mean - 0.01 * jitter, 3 * mean)


def test_calibrated_confidence_is_the_share_of_good_ones() -> None:
    found = calibrate("m:1", [*verdicts(100), *verdicts(30, model="m:2")])
    assert (found.good, found.bad) == (60, 40)
    assert found.auroc > 0.8
    assert confidence_of(evidence(-0.2), found) == pytest.approx(1.0, abs=0.1)
    assert confidence_of(evidence(-1.5, 50), found) == pytest.approx(0.2, abs=0.1)


def test_uncalibrated_confidence_is_the_mean_probability_of_a_token() -> None:
    assert confidence_of(Evidence(math.log(0.7), -5.0), None) == pytest.approx(0.7)


@pytest.mark.parametrize("outcomes", [[], verdicts(19), verdicts(50, model="m:2"), verdicts(100)[::2]])
def test_too_few_verdicts_teach_nothing(outcomes: list[JudgedAnswer]) -> None:
    with pytest.raises(ArtefactError, match=r"on answers of m:1.*mqrouter feedback"):
        calibrate("m:1", outcomes)


def test_calibrations_come_back_from_their_file() -> None:
    found = {model: calibrate(model, verdicts(40, model=model)) for model in ("m:1", "m:2")}
    assert load(json.dumps(dump(found))) == found


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [('"format": 1', '"format": 2', "format 2"), ('"bias"', '"bia"', "KeyError"), ("{", "[", "JSONDecodeError"),
     ('"model": "m:1"', '"model": "m:2"', "do not fit"), ('"spreads": [', '"spreads": [1.0, ', "do not fit")],
)  # fmt: skip
def test_damaged_or_foreign_calibration_is_refused(old: str, new: str, why: str) -> None:
    content = json.dumps(dump({"m:1": calibrate("m:1", verdicts(40))}))
    assert old in content
    with pytest.raises(ArtefactError, match=why):
        load(content.replace(old, new))


def test_operators_verdict_holds_and_a_device_has_not_too_many() -> None:
    operator, device = verdicts(3), verdicts(40, source=Source.MQTT)
    found = outcomes_of([*device, *operator])
    assert {entry.request_id: entry.source for entry in found if entry.source is Source.OPERATOR}.keys() == {
        entry.request_id for entry in operator
    }
    assert len(found) == 3 + 3
