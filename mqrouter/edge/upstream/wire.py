"""What the client asks of a wire form: where and what to send, and how to read what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mqrouter.core.events import TierCall, TierEvent


@dataclass(frozen=True, slots=True)
class Readings:
    """What a piece of the body came to."""

    events: list[TierEvent]
    is_sign_of_life: bool
    """The server said something, if only that it works on it; a comment to keep a connection open is none."""
    has_begun: bool
    """The model has begun to answer, or to think about it."""


class AnswerReader(Protocol):
    """Reads one answer; what is not one is a TransientError."""

    def feed(self, chunk: bytes) -> Readings: ...

    def close(self) -> list[TierEvent]:
        """The body has ended: what is missing now stays missing."""
        ...


class Wire(Protocol):
    """Paths are relative to the tier's address."""

    @property
    def chat_path(self) -> str: ...

    @property
    def probe_path(self) -> str: ...

    def body(self, call: TierCall) -> dict[str, Any]:
        """Returns what to send; without null fields, which llama.cpp's server refuses."""
        ...

    def warming_body(self) -> dict[str, Any]:
        """Returns the cheapest request that keeps the model loaded."""
        ...

    def reader(self) -> AnswerReader: ...

    def why_not_up(self, status: int, body: bytes) -> str | None:
        """Returns what the reply to a probe shows to be missing; None for a tier that is up."""
        ...

    def remedy(self, status: int, detail: str) -> str:
        """Returns what to do about a refusal; empty where the wire form says nothing of it."""
        ...
