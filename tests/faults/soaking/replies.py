"""The ways in which a tier of the soak misbehaves."""

from __future__ import annotations

from collections.abc import Iterable

from bad_tier import STREAM_HEAD, Part, RawCall, Script, drip, event, reply, whole_stream

RETRY_AFTER_S = 1
LATE_S = 0.7


def fail(_call: RawCall) -> Iterable[Part]:
    return [reply(b'{"error": {"message": "no"}}', status="500 Internal Server Error")]


def rebuff(_call: RawCall) -> Iterable[Part]:
    return [reply(b"{}", status=f"429 Too Many Requests\r\nRetry-After: {RETRY_AFTER_S}")]


def babble(call: RawCall) -> Iterable[Part]:
    if len(call.question) % 2:
        return [b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n{{{{"]
    return [STREAM_HEAD, b"data: {{{{ garbage \xff\r\n\r\n", b"data: [DONE]\n\n"]


def break_off(call: RawCall) -> Iterable[Part]:
    return [STREAM_HEAD, event("echo: half of")]


def trickle(call: RawCall) -> Iterable[Part]:
    return drip(whole_stream(f"echo: {call.question}"), every_s=0.2)


def linger(call: RawCall) -> Iterable[Part]:
    """The good answer, late."""
    return [LATE_S, whole_stream(f"echo: {call.question}")]


SCRIPTS: dict[str, Script] = {script.__name__: script for script in (fail, rebuff, babble, break_off, trickle, linger)}
