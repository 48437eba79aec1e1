"""What is looked at in a local answer: each signal with its value, and what follows from them together."""

from __future__ import annotations

import json

import pytest

from mqrouter.core.answer_signals import Evidence, Judged, describe, find_refusal, form_signals, parse_judged
from mqrouter.settings import REFUSALS

QUESTION = "How deep do I plant the potatoes?"
EVIDENCE = Evidence(-0.5, -1.5)


def judged(answer: str, finish_reason: str = "stop", *, confidence: float = 0.6, least: float | None = 0.5) -> Judged:
    signals = form_signals(QUESTION, answer, finish_reason, EVIDENCE, REFUSALS)
    return Judged("edge", "m:1", signals, confidence, least, is_calibrated=True)


@pytest.mark.parametrize(
    ("answer", "finish_reason", "fault"),
    [
        ("Ten centimetres.", "stop", None),
        (" \n", "stop", "empty"),
        ("Ten. " * 100, "length", "repetitive"),
        ("I'm sorry, but I can't help with that.", "stop", "refusal"),
        ("Die Kartoffeln werden zehn Zentimeter tief in die Erde gelegt und nicht tiefer.", "stop", "wrong language"),
        ("About ten centimetres, or in", "length", "truncated"),
    ],
)
def test_first_fault_is_the_worst(answer: str, finish_reason: str, fault: str | None) -> None:
    assert judged(answer, finish_reason).fault == fault


@pytest.mark.parametrize(
    ("confidence", "least", "fault"), [(0.4, 0.5, "unlikely"), (0.5, 0.5, None), (0.1, None, None)]
)
def test_unlikely_is_below_the_least_asked_for(confidence: float, least: float | None, fault: str | None) -> None:
    assert judged("Ten centimetres.", confidence=confidence, least=least).fault == fault


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I do not know.",
        "I\u2019m sorry, but I can\u2019t answer that.",
        "Hello! I am unable to open the valve.",
    ],
)
def test_refusal_is_known_by_its_beginning(answer: str) -> None:
    assert find_refusal(answer, REFUSALS) is not None


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that your cow is ill. Keep her warm and call the vet.",
        "As an air filter, straw is of little use.",
        "You cannot provide too much shade.",
        f"{'Water the roots. ' * 20} A tired plant says: I am unable to grow.",
    ],
)
def test_what_only_sounds_like_a_refusal_is_none(answer: str) -> None:
    assert find_refusal(answer, REFUSALS) is None


def test_judgement_comes_back_from_the_history() -> None:
    found = judged("Ten centimetres.", confidence=0.4)
    again = parse_judged(json.dumps(found.to_json()))
    assert (again, again.evidence, again.fault) == (found, EVIDENCE, "unlikely")


def test_line_for_people_shows_values_limits_and_the_bad_one() -> None:
    line = describe(judged("Ten. " * 100, confidence=0.9))
    assert line.startswith("edge: repetitive: characters 499 (limit 1), repetition 1 (limit 0.5)!")
    assert line.endswith("mean_logprob -0.5, least_logprob -1.5; confidence 0.90, least 0.50")
    plain = Judged("edge", None, form_signals(QUESTION, "Ten.", "stop", None, []), None, None, is_calibrated=False)
    assert describe(plain).endswith("finish stop") and plain.evidence is None
