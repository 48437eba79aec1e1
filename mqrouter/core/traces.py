"""Whose work a question is part of: W3C trace context, and the spans of a question's life. No I/O.

Identifiers follow from the request's own: so one trace tells of a question that waits for hours, across restarts, and
nothing but the sender's context has to be kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PROPERTY = "traceparent"
"""Name of the MQTT user property, of the JSON key and of the HTTP header."""
MAX_CHARS = 512
_VERSION_0 = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_LATER = re.compile(r"(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)
_IS_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span as its children know it; identifiers are hexadecimal, 32 and 16 digits."""

    trace_id: str
    span_id: str
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{_IS_SAMPLED if self.is_sampled else 0:02x}"


def parse(text: object) -> TraceContext | None:
    """Returns what a `traceparent` says; None for what is none, which is nobody's fault worth an error.

    Of later versions what version 00 has (Trace Context, 3.2.4).
    """
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        return None
    found = _VERSION_0.fullmatch(text) or _LATER.fullmatch(text)
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _IS_SAMPLED))


def carried(*candidates: object) -> str | None:
    """Returns the first `traceparent` among these, as it is passed on."""
    return next((str(context) for text in candidates if (context := parse(text)) is not None), None)


def of_request(request_id: str, sender: str | None, ratio: float) -> tuple[TraceContext, TraceContext | None]:
    """Returns the context of a request's first span, and that of the sender, its parent.

    What a sender says of sampling holds; without one, this share of the requests is sampled.
    """
    parent = parse(sender)
    span_id = _digits("span", request_id, 16)
    if parent is not None:
        return TraceContext(parent.trace_id, span_id, parent.is_sampled), parent
    trace_id = _digits("trace", request_id, 32)
    return TraceContext(trace_id, span_id, int(trace_id[16:], 16) < ratio * 2**64), None


def _digits(what: str, request_id: str, number: int) -> str:
    return hashlib.sha256(f"{what} {request_id}".encode()).hexdigest()[:number]


class Kind(StrEnum):
    """What a span is to others, as OpenTelemetry has it."""

    INTERNAL = "internal"
    CLIENT = "client"
    CONSUMER = "consumer"
    PRODUCER = "producer"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was done for a request; times are the machine's, nanoseconds since 1970."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int | float | bool | list[str]] = field(default_factory=dict)
    error: str | None = None
    """Why it failed; None where it did not."""
