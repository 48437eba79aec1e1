"""What a tier says while it answers, whatever its wire format."""

from __future__ import annotations

from dataclasses import dataclass

from mqrouter.core.answer_signals import Evidence
from mqrouter.core.request import Message


@dataclass(frozen=True, slots=True)
class TierCall:
    """One attempt at a tier."""

    request_id: str
    """Also the Idempotency-Key: the same for every attempt of a request."""
    messages: tuple[Message, ...]
    deadline_s: float
    """Limit of this attempt from its start, seconds; never beyond the request's time to live."""
    traceparent: str | None = None
    """The span that this call is part of, for the server's own traces."""


@dataclass(frozen=True, slots=True)
class Delta:
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    finish_reason: str
    """"stop", or "length" where the answer was cut off."""
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    evidence: Evidence | None = None
    """None where the tier does not say what it thought of its words."""
    fingerprint: str | None = None
    """Of the model's file, where it is on this device."""


TierEvent = Delta | Done
