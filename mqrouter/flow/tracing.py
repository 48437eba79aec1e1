"""Spans of each question's life, for whoever collects them: never a text, and no device of a private question."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from mqrouter.core.events import Done, TierCall, TierEvent
from mqrouter.core.records import Accepted, OutboxRow, StoredRequest
from mqrouter.core.request import Refused, Request
from mqrouter.core.traces import PROPERTY, Kind, Span, TraceContext, of_request
from mqrouter.errors import MqrouterError
from mqrouter.flow.judge import Judgement
from mqrouter.flow.ports import SpanSink, TierClient

Attributes = dict[str, str | int | float | bool | list[str]]


class Traces(Protocol):
    """Hears what was done for each question; does not fail, and holds nobody up. Times in seconds."""

    def accepted(self, items: Sequence[Request | Refused], results: Sequence[Accepted], took_s: float) -> None: ...

    def decided(self, request: StoredRequest, judgement: Judgement, took_s: float) -> None: ...

    def waited(self, request: StoredRequest, tier: str, waited_s: float) -> None:
        """It is at a tier for the first time, so long after it came in."""
        ...

    def published(self, row: OutboxRow, outcome: str, took_s: float) -> None:
        """The broker said what became of an answer."""
        ...

    def follow(self, tier: str, client: TierClient) -> TierClient:
        """Returns a client whose calls are heard of as well."""
        ...


class NoTraces:
    """Nobody collects spans; what senders say of theirs is passed on all the same."""

    def accepted(self, items: Sequence[Request | Refused], results: Sequence[Accepted], took_s: float) -> None: ...

    def decided(self, request: StoredRequest, judgement: Judgement, took_s: float) -> None: ...

    def waited(self, request: StoredRequest, tier: str, waited_s: float) -> None: ...

    def published(self, row: OutboxRow, outcome: str, took_s: float) -> None: ...

    def follow(self, _tier: str, client: TierClient) -> TierClient:
        return client


class Tracing:
    """Every question has one trace: `accept`, and below it `decide`, `wait`, `attempt` and `deliver`.

    `wall_ns` is the machine's own clock; `ratio` is the share of questions that are traced where their sender has no
    opinion; `tells_device` names the device, unless the question is private.
    """

    def __init__(self, sink: SpanSink, wall_ns: Callable[[], int], *, ratio: float, tells_device: bool) -> None:
        self._sink = sink
        self._wall_ns = wall_ns
        self._ratio = ratio
        self._tells_device = tells_device

    def accepted(self, items: Sequence[Request | Refused], results: Sequence[Accepted], took_s: float) -> None:
        for item, result in zip(items, results, strict=True):
            if result is Accepted.ABSORBED:
                continue  # its question has a trace already
            sender = None if item.reply is None else item.reply.traceparent
            context, parent = of_request(item.id, sender, self._ratio)
            attributes: Attributes = {"mqrouter.request_id": item.id, "mqrouter.result": str(result)}
            error = None
            if isinstance(item, Refused):
                error = str(item.code)
                attributes["mqrouter.error"] = error
            self._record("accept", Kind.CONSUMER, context, parent, took_s, attributes, error)

    def decided(self, request: StoredRequest, judgement: Judgement, took_s: float) -> None:
        decision, plan = judgement.decision, judgement.tier_plan
        attributes: Attributes = {
            "mqrouter.route": decision.route or "",
            "mqrouter.score": float(decision.score),
            "mqrouter.margin": float(decision.margin),
            "mqrouter.reason": str(decision.reason),
            "mqrouter.strategy": decision.strategy,
            "mqrouter.tiers": list(plan.tiers),
            "mqrouter.private": judgement.private_by.is_private,
        }
        if self._tells_device and not judgement.private_by.is_private:
            attributes["mqrouter.device"] = request.device
        error = None if plan.refusal is None else str(plan.refusal)
        self._child("decide", Kind.INTERNAL, request.id, request.reply.traceparent, took_s, attributes, error)

    def waited(self, request: StoredRequest, tier: str, waited_s: float) -> None:
        attributes: Attributes = {"mqrouter.tier": tier, "mqrouter.priority": request.priority}
        self._child("wait", Kind.INTERNAL, request.id, request.reply.traceparent, waited_s, attributes)

    def published(self, row: OutboxRow, outcome: str, took_s: float) -> None:
        known = {
            "mqrouter.state": str(row.state),
            "mqrouter.error": row.reason,
            "mqrouter.route": row.route,
            "mqrouter.tier": row.tier,
            "gen_ai.response.model": row.model,
        }
        attributes: Attributes = {name: value for name, value in known.items() if value is not None}
        attributes |= {"mqrouter.attempts": row.attempts, "mqrouter.provisional": row.is_provisional}
        attributes["mqrouter.outcome"] = outcome
        sender = dict(row.message.user_properties).get(PROPERTY)
        error = None if outcome == "taken" else outcome
        self._child("deliver", Kind.PRODUCER, row.request_id, sender, took_s, attributes, error)

    def follow(self, tier: str, client: TierClient) -> TierClient:
        """Returns the client with a span for each of its calls."""
        return _Followed(tier, client, self)

    def attempt(self, call: TierCall) -> TraceContext:
        """Returns the context of a call that is about to be made."""
        return replace(of_request(call.request_id, call.traceparent, self._ratio)[0], span_id=_new_span_id())

    def attempted(
        self, call: TierCall, context: TraceContext, took_s: float, attributes: Attributes, error: str | None
    ) -> None:
        """The call has ended; `call` is as the request's sender made it."""
        parent, _ = of_request(call.request_id, call.traceparent, self._ratio)
        self._record("attempt", Kind.CLIENT, context, parent, took_s, attributes, error)

    def now_s(self) -> float:
        return self._wall_ns() / 1e9

    def _child(
        self,
        name: str,
        kind: Kind,
        request_id: str,
        sender: str | None,
        took_s: float,
        attributes: Attributes,
        error: str | None = None,
    ) -> None:
        parent, _ = of_request(request_id, sender, self._ratio)
        self._record(name, kind, replace(parent, span_id=_new_span_id()), parent, took_s, attributes, error)

    def _record(
        self,
        name: str,
        kind: Kind,
        context: TraceContext,
        parent: TraceContext | None,
        took_s: float,
        attributes: Attributes,
        error: str | None,
    ) -> None:
        if not context.is_sampled:
            return
        ended_ns = self._wall_ns()
        started_ns = ended_ns - int(1e9 * max(0.0, took_s))
        self._sink.record(Span(name, kind, context, parent, started_ns, ended_ns, attributes, error))


class _Followed:
    def __init__(self, tier: str, client: TierClient, tracing: Tracing) -> None:
        self._tier = tier
        self._client = client
        self._tracing = tracing

    async def probe(self) -> bool:
        return await self._client.probe()

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """As the client, which is told the span to be the parent of the server's own."""
        context, started_s = self._tracing.attempt(call), self._tracing.now_s()
        attributes: Attributes = {"mqrouter.tier": self._tier, "gen_ai.operation.name": "chat"}
        error: str | None = None
        try:
            async with aclosing(self._client.stream(replace(call, traceparent=str(context)))) as events:
                async for event in events:
                    if isinstance(event, Done):
                        attributes |= _done(event)
                    yield event
        except GeneratorExit:
            raise  # whoever asked has heard enough
        except BaseException as failure:
            error = str(failure) if isinstance(failure, MqrouterError) else type(failure).__name__
            attributes["error.type"] = type(failure).__name__
            raise
        finally:
            self._tracing.attempted(call, context, self._tracing.now_s() - started_s, attributes, error)


def _done(event: Done) -> Attributes:
    return {
        "gen_ai.response.model": event.model,
        "gen_ai.response.finish_reasons": [event.finish_reason],
        "gen_ai.usage.input_tokens": event.prompt_tokens,
        "gen_ai.usage.output_tokens": event.completion_tokens,
    }


def _new_span_id() -> str:
    return secrets.token_hex(8)
