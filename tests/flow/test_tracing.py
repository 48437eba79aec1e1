"""Spans of a question's life: what they tell, and what they never do."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from fakes import refused, request

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.records import Accepted
from mqrouter.core.request import Message, Refused, Request
from mqrouter.core.traces import Span
from mqrouter.errors import TransientError
from mqrouter.flow.tracing import Tracing

NOW_NS = 1_700_000_000_000_000_000
CALL = TierCall("r1", (Message("user", "okapi"),), 30.0)


class Sink:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        self.spans.append(span)


@pytest.fixture
def sink() -> Sink:
    return Sink()


def tracing(sink: Sink, ratio: float = 1.0) -> Tracing:
    return Tracing(sink, lambda: NOW_NS, ratio=ratio, tells_device=True)


class Tier:
    def __init__(self, *events: TierEvent, error: BaseException | None = None) -> None:
        self.events = events
        self.error = error
        self.asked: list[TierCall] = []

    async def probe(self) -> bool:
        return True

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        self.asked.append(call)
        for event in self.events:
            yield event
        if self.error is not None:
            raise self.error


def test_what_was_absorbed_has_its_trace_already(sink: Sink) -> None:
    items: list[Request | Refused] = [request("a?"), request("b?"), refused(b"\xff")]
    tracing(sink).accepted(items, [Accepted.NEW, Accepted.ABSORBED, Accepted.REFUSED], 0.25)

    assert [span.attributes["mqrouter.request_id"] for span in sink.spans] == [items[0].id, items[2].id]
    assert [span.error for span in sink.spans] == [None, "not_utf8"]
    assert all(span.ended_ns - span.started_ns == 250_000_000 for span in sink.spans)


def test_what_is_not_sampled_leaves_no_span(sink: Sink) -> None:
    tracing(sink, ratio=0.0).accepted([request("a?")], [Accepted.NEW], 0.1)
    assert sink.spans == []


async def test_call_is_the_parent_of_what_the_server_does(sink: Sink) -> None:
    tier = Tier(Delta("yes"), Done("stop", "m", 3, 1))
    events = [event async for event in tracing(sink).follow("hub", tier).stream(CALL)]

    (span,) = sink.spans
    assert events == list(tier.events)
    assert tier.asked[0].traceparent == str(span.context)
    assert (span.error, span.attributes["gen_ai.usage.output_tokens"]) == (None, 1)
    assert "okapi" not in str(span)


async def test_failed_call_says_what_kind_of_failure(sink: Sink) -> None:
    client = tracing(sink).follow("hub", Tier(error=TransientError("HTTP 503")))
    with pytest.raises(TransientError):
        async for _ in client.stream(CALL):
            pass
    (span,) = sink.spans
    assert (span.error, span.attributes["error.type"]) == ("HTTP 503", "TransientError")


async def test_call_that_was_heard_long_enough_has_not_failed(sink: Sink) -> None:
    stream = tracing(sink).follow("hub", Tier(Delta("a"), Delta("b"))).stream(CALL)
    await anext(stream)
    await stream.aclose()
    assert [span.error for span in sink.spans] == [None]


async def test_without_a_sampled_trace_the_call_says_so(sink: Sink) -> None:
    tier = Tier(Done("stop", "m"))
    async for _ in tracing(sink, ratio=0.0).follow("hub", tier).stream(CALL):
        pass
    assert sink.spans == []
    assert str(tier.asked[0].traceparent).endswith("-00")
