"""How likely a local answer is a good one: from what its model thought of its words, calibrated on verdicts.

A calibration belongs to one model file: another quantisation of the same model is sure of itself in another way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from mqrouter.core.answer_signals import Evidence
from mqrouter.core.feedback import JudgedAnswer
from mqrouter.core.request import JsonObject
from mqrouter.routing.artefact import ArtefactError
from mqrouter.routing.calibration import Bools, Floats, Platt, fit_platt
from mqrouter.routing.metrics import auroc

FORMAT = 1
LEAST_VERDICTS = 20
LEAST_OF_A_KIND = 5


@dataclass(frozen=True, slots=True)
class AnswerCalibration:
    """From the evidence in an answer to the probability that it is good."""

    model: str
    platt: Platt
    good: int
    bad: int
    auroc: float
    """Of the calibrated confidence on the very verdicts it was fitted to: 0.5 says that the evidence tells nothing."""


Calibrations = Mapping[str, AnswerCalibration]
"""By the fingerprint of the model's file."""


def confidence_of(evidence: Evidence, calibration: AnswerCalibration | None) -> float:
    """Returns the probability that an answer is good; uncalibrated, the geometric mean of its tokens' probabilities."""
    return math.exp(evidence.mean_logprob) if calibration is None else calibration.platt(*evidence.values)


def calibrate(model: str, outcomes: Sequence[JudgedAnswer]) -> AnswerCalibration:
    """Returns what the verdicts on one model's answers teach. Raises ArtefactError where they are too few."""
    mine = [outcome for outcome in outcomes if outcome.model == model]
    good = sum(outcome.is_good for outcome in mine)
    bad = len(mine) - good
    if len(mine) < LEAST_VERDICTS or min(good, bad) < LEAST_OF_A_KIND:
        raise ArtefactError(
            f"{good} good and {bad} bad verdicts on answers of {model}: {LEAST_VERDICTS} are needed,"
            f" {LEAST_OF_A_KIND} of each; give more with `mqrouter feedback ID good` or `bad`"
        )
    evidence = np.array([outcome.evidence.values for outcome in mine])
    is_good = np.array([outcome.is_good for outcome in mine])
    platt = fit_platt(evidence, is_good)
    return AnswerCalibration(model, platt, good, bad, _separation(platt.many(evidence), is_good))


def _separation(confidence: Floats, is_good: Bools) -> float:
    return auroc(confidence[is_good], confidence[~is_good])


def dump(calibrations: Calibrations) -> JsonObject:
    return {"format": FORMAT, "models": {model: asdict(entry) for model, entry in sorted(calibrations.items())}}


def load(content: str) -> dict[str, AnswerCalibration]:
    """Raises ArtefactError for a file that is damaged or of another version."""
    try:
        described = json.loads(content)
        if described["format"] != FORMAT:
            raise ArtefactError(f"the calibration is of format {described['format']}, this mqrouter reads {FORMAT}")
        return {model: _calibration(model, entry) for model, entry in described["models"].items()}
    except ArtefactError:
        raise
    except Exception as error:  # whatever a damaged file makes of JSON and its parts
        raise ArtefactError(f"the calibration cannot be read ({type(error).__name__})") from error


def _calibration(model: str, entry: dict[str, object]) -> AnswerCalibration:
    platt = entry.pop("platt")
    assert isinstance(platt, dict)
    found = Platt(tuple(platt["slopes"]), float(platt["bias"]), tuple(platt["means"]), tuple(platt["spreads"]))
    if {len(found.slopes), len(found.means), len(found.spreads)} != {len(fields(Evidence))} or entry["model"] != model:
        raise ArtefactError("the parts of the calibration do not fit together")
    return AnswerCalibration(platt=found, **entry)  # type: ignore[arg-type]
