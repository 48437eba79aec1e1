"""The faults: what the bad tier does, who is to answer, and how often the bad one may be asked."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum

from bad_tier import (
    CHUNKED_HEAD,
    MIB,
    STREAM_HEAD,
    Part,
    RawCall,
    Reset,
    drip,
    event,
    repeated,
    reply,
    whole_object,
    whole_stream,
)

CONNECT_LIMIT_S = 2.0
FIRST_TOKEN_LIMIT_S = 4.0
IDLE_LIMIT_S = 0.8
TOTAL_LIMIT_S = 60.0
"""Beyond every deadline: that it ends what the other limits should have ended is not right."""
LOAD_S = 1.5
"""A cold load: longer than the silence between tokens may be, shorter than the wait for the first."""
HOLD_S = 60
OVERSIZE = 5 * MIB
FOREVER_S = 3600.0

BAD, GOOD = "bad", "good"


class Kind(StrEnum):
    OPENAI = "openai"
    OLLAMA = "ollama"


class Place(StrEnum):
    """Where the bad tier is said to be."""

    THERE = "there"
    NOBODY = "nobody listens"
    NOWHERE = "the name is not known"
    NOT_TRUSTED = "its certificate is not trusted"


@dataclass(frozen=True)
class Fault:
    """One way to fail. `answered_by` has one entry for each question that is asked, one after the other."""

    name: str
    variant: str
    script: Callable[[RawCall], Iterable[Part]]
    answered_by: Sequence[str] = (GOOD,)
    calls: int = 1
    limit_s: float = 0.0
    """What the configured limits make the first question wait for."""
    kind: Kind = Kind.OPENAI
    place: Place = Place.THERE

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.name, self.variant, self.kind)))


def _always(*parts: Part) -> Callable[[RawCall], Iterable[Part]]:
    return lambda _call: parts


def _status(status: str, words: object, head: str = "") -> Callable[[RawCall], Iterable[Part]]:
    return _always(_refusal(status, words, head))


def _refusal(status: str, words: object, head: str = "") -> bytes:
    return reply(json.dumps(words).encode(), status=status).replace(b"Connection:", head.encode() + b"Connection:", 1)


def _until(call: RawCall) -> Iterable[Part]:
    yield _refusal("429 Too Many Requests", SAID, f"Retry-After: {formatdate(time.time() + HOLD_S, usegmt=True)}\r\n")


def _fails_once() -> Callable[[RawCall], Iterable[Part]]:
    replies = itertools.chain([_refusal("500 Oh", SAID)], itertools.repeat(whole_stream("well again")))
    return lambda _call: [next(replies)]


def _line(text: str, *, is_done: bool = False) -> bytes:
    """One object of a streamed answer of Ollama's."""
    message = {"role": "assistant", "content": text}
    value = {"model": "bad", "created_at": "2026-11-21T06:00:00.123456Z", "message": message, "done": is_done}
    return json.dumps(value | ({"done_reason": "stop"} if is_done else {}), separators=(",", ":")).encode() + b"\n"


def _page() -> bytes:
    return reply(b"<html><body>Welcome to the guest network</body></html>", kind="text/html")


SAID = {"error": {"message": "scripted"}}
HALF, HALF_LINE = event("half an answer"), _line("half an answer")
NDJSON_HEAD = STREAM_HEAD.replace(b"text/event-stream", b"application/x-ndjson")
OBJECT = whole_object("half an answer")
MISSING = {"message": "The model `bad` does not exist", "type": "invalid_request_error", "code": "model_not_found"}

FAULTS: tuple[Fault, ...] = (
    Fault("no response", "", _always(FOREVER_S), limit_s=FIRST_TOKEN_LIMIT_S),
    Fault("refused", "", _always(), (GOOD, GOOD), 0, place=Place.NOBODY),
    # A connection that ends before a word may be a stale one: it is replaced once, within the attempt.
    Fault("reset", "before the stream", _always(Reset.NOW), calls=2),
    Fault("reset", "during the stream", _always(STREAM_HEAD + HALF, Reset.NOW)),
    Fault("reset", "during the stream", _always(NDJSON_HEAD + HALF_LINE, Reset.NOW), kind=Kind.OLLAMA),
    Fault("stall after the first token", "", _always(STREAM_HEAD + HALF, FOREVER_S), limit_s=IDLE_LIMIT_S),
    Fault(
        "stall after the first token",
        "",
        _always(NDJSON_HEAD + HALF_LINE, FOREVER_S),
        limit_s=IDLE_LIMIT_S,
        kind=Kind.OLLAMA,
    ),
    Fault("429", "seconds", _status("429 Too Many Requests", SAID, f"Retry-After: {HOLD_S}\r\n"), (GOOD, GOOD)),
    Fault("429", "date", _until, (GOOD, GOOD)),
    Fault("500 then success", "", _fails_once(), (GOOD, BAD), 2),
    Fault("503", "", _status("503 Service Unavailable", SAID)),
    Fault("503", "", _status("503 Service Unavailable", {"error": "server busy, please try again."}), kind=Kind.OLLAMA),
    Fault("wrong content type", "", _always(_page())),
    Fault("truncated", "JSON", _always(reply(OBJECT[:-20]))),
    Fault("truncated", "JSON", _always(reply(HALF_LINE[:-9])), kind=Kind.OLLAMA),
    Fault("truncated", "stream", _always(STREAM_HEAD + HALF)),
    Fault("truncated", "stream within a chunk", _always(CHUNKED_HEAD + b"%x\r\n" % (len(HALF) + 40) + HALF)),
    Fault("truncated", "stream", _always(NDJSON_HEAD + HALF_LINE), kind=Kind.OLLAMA),
    Fault("slow drip", "", lambda _: drip(whole_stream("slow"), every_s=0.1), limit_s=FIRST_TOKEN_LIMIT_S),
    Fault(
        "slow drip",
        "",
        lambda _: drip(NDJSON_HEAD + HALF_LINE, every_s=0.1),
        limit_s=FIRST_TOKEN_LIMIT_S,
        kind=Kind.OLLAMA,
    ),
    Fault("oversized body", "", lambda _: itertools.chain([STREAM_HEAD], repeated(event("word " * 99), OVERSIZE))),
    Fault(
        "oversized body",
        "",
        lambda _: itertools.chain([NDJSON_HEAD], repeated(_line("word " * 99), OVERSIZE)),
        kind=Kind.OLLAMA,
    ),
    Fault("DNS failure", "", _always(), (GOOD, GOOD), 0, place=Place.NOWHERE, limit_s=CONNECT_LIMIT_S),
    Fault("TLS failure", "", _always(whole_stream("eavesdropped")), (GOOD, GOOD), 0, place=Place.NOT_TRUSTED),
    Fault("auth failure", "", _status("401 Unauthorized", SAID), (GOOD, GOOD)),
    Fault("model missing", "", _status("404 Not Found", {"error": MISSING})),
    Fault("model missing", "", _status("404 Not Found", {"error": "model 'bad' not found"}), kind=Kind.OLLAMA),
    Fault("cold load", "", _always(LOAD_S, whole_stream("here I am")), (BAD,), limit_s=LOAD_S),
    Fault(
        "cold load",
        "",
        _always(LOAD_S, NDJSON_HEAD + _line("here I am") + _line("", is_done=True)),
        (BAD,),
        limit_s=LOAD_S,
        kind=Kind.OLLAMA,
    ),
)
NAMES = tuple(dict.fromkeys(fault.name for fault in FAULTS))
