"""What is looked at in a local answer before it is sent: every signal with its value and its limit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mqrouter.core.answer_check import MAX_REPEATED_SHARE
from mqrouter.core.language import mismatch
from mqrouter.core.repetition import repeated_share

REFUSAL_WITHIN_CHARS = 200
"""A refusal comes at once; later the same words may be part of a story."""


FAULTS = {
    "characters": "empty",
    "repetition": "repetitive",
    "refusal": "refusal",
    "language": "wrong language",
    "finish": "truncated",
}
"""What an answer is called where the signal of that name is bad."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the model itself thought of its words: natural logarithms of the probabilities of its tokens."""

    mean_logprob: float
    least_logprob: float
    """The mean of the least certain run of WINDOW_TOKENS tokens."""

    @property
    def values(self) -> tuple[float, ...]:
        return (self.mean_logprob, self.least_logprob)


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing looked at; `limit` is None for what has none of its own, and only adds to the confidence."""

    name: str
    value: float | str | None
    limit: float | str | None
    is_bad: bool

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" (limit {_short(self.limit)})"
        return f"{self.name} {_short(self.value)}{limit}{'!' if self.is_bad else ''}"


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a local answer stands. `least` is None where no confidence was asked for."""

    tier: str
    model: str | None
    """Fingerprint of the model file."""
    signals: tuple[Signal, ...]
    confidence: float | None
    least: float | None
    is_calibrated: bool

    @property
    def fault(self) -> str | None:
        """What is wrong with the answer, the worst first; None where it is fit to send."""
        bad = next((FAULTS[signal.name] for signal in self.signals if signal.is_bad), None)
        return bad or ("unlikely" if self.is_unlikely else None)

    @property
    def evidence(self) -> Evidence | None:
        values = {signal.name: signal.value for signal in self.signals}
        mean, least = values.get("mean_logprob"), values.get("least_logprob")
        return Evidence(mean, least) if isinstance(mean, float) and isinstance(least, float) else None

    @property
    def is_unlikely(self) -> bool:
        return self.least is not None and self.confidence is not None and self.confidence < self.least

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fault": self.fault}

    def __str__(self) -> str:
        signals = ", ".join(map(str, self.signals))
        if self.confidence is None:
            return signals
        how = "" if self.is_calibrated else ", not calibrated"
        least = "" if self.least is None else f", least {self.least:.2f}"
        return f"{signals}; confidence {self.confidence:.2f}{least}{how}"


def parse_judged(noted: str) -> Judged:
    """Returns a judgement from what the history keeps of it."""
    found = json.loads(noted)
    del found["fault"]  # follows from the rest
    return Judged(**found | {"signals": tuple(Signal(**signal) for signal in found["signals"])})


def describe(judged: Judged) -> str:
    """Returns a judgement as a line for people."""
    return f"{judged.tier}: {judged.fault or 'fit to send'}: {judged}"


def form_signals(
    question: str, answer: str, finish_reason: str, evidence: Evidence | None, refusal_phrases: Sequence[str]
) -> tuple[Signal, ...]:
    """Returns the signals of an answer's form, those that say most against it first."""
    characters, share = len(answer.strip()), repeated_share(answer)
    found = mismatch(question, answer)
    asked, answered = (None, None) if found is None else (found.asked, found.answered)
    refusal = find_refusal(answer, refusal_phrases)
    signals = [
        Signal("characters", characters, 1, characters < 1),
        Signal("repetition", round(share, 2), MAX_REPEATED_SHARE, share >= MAX_REPEATED_SHARE),
        Signal("refusal", refusal, None, refusal is not None),
        Signal("language", answered, asked, found is not None),
        Signal("finish", finish_reason, None, finish_reason == "length"),
    ]
    if evidence is not None:
        signals += [
            Signal("mean_logprob", round(evidence.mean_logprob, 4), None, False),
            Signal("least_logprob", round(evidence.least_logprob, 4), None, False),
        ]
    return tuple(signals)


def find_refusal(answer: str, phrases: Sequence[str]) -> str | None:
    """Returns the first of the phrases that the answer begins with, near enough; case and apostrophes do not matter."""
    start = _plain(answer[:REFUSAL_WITHIN_CHARS])
    return next((phrase for phrase in phrases if re.search(rf"\b{re.escape(_plain(phrase))}\b", start)), None)


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace("\u2019", "'").split())


def _short(value: float | str | None) -> str:
    return "none" if value is None else value if isinstance(value, str) else f"{value:g}"
