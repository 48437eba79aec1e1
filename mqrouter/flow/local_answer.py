"""What is made of an answer of this device's model before it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mqrouter.core.answer_signals import Judged, form_signals
from mqrouter.core.events import Done
from mqrouter.errors import ModelError
from mqrouter.flow.judge import Judge
from mqrouter.routing.answer_confidence import confidence_of

NEVER_SENT = frozenset({"empty", "repetitive"})
"""Other faults are better than no answer at all."""


@dataclass(frozen=True, slots=True)
class LocalRules:
    """Of one local tier."""

    refusal_phrases: tuple[str, ...] = ()
    min_confidence: float | None = None
    """Whatever the strategy; None: only what the strategy asks for."""
    ttl_share: float = 1.0
    """Of the time to live left, for an attempt while another tier is up."""


def judge_local(
    tier: str, rules: LocalRules, judge: Judge, strategy: str | None, question: str, answer: str, done: Done
) -> Judged:
    """Returns the signals, and the confidence where the model gave evidence for one."""
    calibration = None if done.fingerprint is None else judge.calibrations.get(done.fingerprint)
    return Judged(
        tier=tier,
        model=done.fingerprint,
        signals=form_signals(question, answer, done.finish_reason, done.evidence, rules.refusal_phrases),
        confidence=None if done.evidence is None else round(confidence_of(done.evidence, calibration), 4),
        least=least_confidence(rules, judge, strategy),
        is_calibrated=calibration is not None,
    )


def least_confidence(rules: LocalRules, judge: Judge, strategy: str | None) -> float | None:
    """Returns the greater of what the strategy and the tier ask of an answer; None where neither asks."""
    wanted = (judge.least_confidence(strategy), rules.min_confidence)
    return max((least for least in wanted if least is not None), default=None)


def check_local(judged: Judged, *, is_last_resort: bool) -> str:
    """Returns the judgement for the history. Raises ModelError where the answer must not be sent."""
    noted = json.dumps(judged.to_json(), ensure_ascii=False)
    if judged.fault is not None and (judged.fault in NEVER_SENT or not is_last_resort):
        raise ModelError(f"the answer was {judged.fault}", judged=noted, is_lesser=judged.fault not in NEVER_SENT)
    return noted
