"""Spans to an OpenTelemetry collector, by OTLP over HTTP. Needs the extra `otel`, imported only where spans are wanted.

A thread of the SDK's sends them in batches. Nothing waits for it: beyond MAX_WAITING spans new ones are dropped and
counted, and what a collector does not take is gone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from mqrouter.core.traces import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = structlog.get_logger("traces")

MAX_WAITING = 2_048
BATCH = 256
PAUSE_MS = 2_000
SEND_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.5
"""For what still waits, when the daemon stops: the limit of an ordered stop leaves no more."""


@dataclass(frozen=True, slots=True)
class SpanOptions:
    endpoint: str
    gateway: str
    version: str


def why_missing() -> str | None:
    """Returns what to install; None where all is there."""
    from importlib.util import find_spec

    try:
        is_there = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        is_there = None
    return None if is_there else "needs the extra otel: pip install 'mqrouter[otel]', or switch it off"


class SpanExport:
    """Use as an async context manager. `counts` are spans exported, dropped (too many waited) and failed."""

    def __init__(self, options: SpanOptions) -> None:
        self._options = options
        self._taken = 0
        self._sent = 0
        self._is_failing = False
        self.counts: Counter[str] = Counter(exported=0, failed=0, dropped=0)

    async def __aenter__(self) -> SpanExport:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider, sampling
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        logging.getLogger("opentelemetry").addHandler(_Silence())  # else it writes to stderr, past the log
        logging.getLogger("opentelemetry").propagate = False
        self._trace = trace
        self._ids = _ids()
        resource = {"service.name": "mqrouter", "service.version": self._options.version}
        self._provider = TracerProvider(
            sampler=sampling.ALWAYS_ON,  # only what is sampled comes here
            resource=Resource.create(resource | {"service.instance.id": self._options.gateway}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        exporter = _counted(OTLPSpanExporter(endpoint=self._options.endpoint, timeout=SEND_TIMEOUT_S), self)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=MAX_WAITING + BATCH,
                max_export_batch_size=BATCH,
                schedule_delay_millis=PAUSE_MS,
            )
        )
        self._tracer = self._provider.get_tracer("mqrouter", self._options.version)
        log.info("traces.exporting", endpoint=self._options.endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        """What still waits is sent, for CLOSE_TIMEOUT_S at most; the thread is not waited for beyond that."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # too late: the loop is closed, and nobody waits
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="traces.close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await closed.wait()
        except TimeoutError:
            log.warning("traces.not_sent", spans=self._taken - self._sent)

    def record(self, span: Span) -> None:
        """Takes the span, or drops it; returns at once either way."""
        if self._taken - self._sent >= MAX_WAITING:
            self.counts["dropped"] += 1
            return
        self._taken += 1
        self._ids.trace_id, self._ids.span_id = int(span.context.trace_id, 16), int(span.context.span_id, 16)
        begun = self._tracer.start_span(
            span.name,
            context=self._parent(span),
            kind=getattr(self._trace.SpanKind, span.kind.name),
            attributes=span.attributes,
            start_time=span.started_ns,
        )
        if span.error is not None:
            begun.set_status(self._trace.Status(self._trace.StatusCode.ERROR, span.error))
        begun.end(span.ended_ns)

    def _parent(self, span: Span) -> Any:
        from opentelemetry.context import Context

        if span.parent is None:
            return Context()
        parent = self._trace.SpanContext(
            int(span.parent.trace_id, 16),
            int(span.parent.span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED),
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(parent), Context())

    def sending(self, spans: int) -> None:
        self._sent += spans

    def told(self, spans: int, *, is_taken: bool) -> None:
        """The collector's answer, or that there was none; from the SDK's thread. Said once until it changes."""
        self.counts["exported" if is_taken else "failed"] += spans
        if is_taken is self._is_failing:
            self._is_failing = not is_taken
            say, event = (log.info, "traces.export_resumed") if is_taken else (log.warning, "traces.export_failed")
            say(event, endpoint=self._options.endpoint)


class _Silence(logging.Handler):
    """Failures are told by `SpanExport.told`, in the daemon's own log."""

    def emit(self, record: logging.LogRecord) -> None: ...


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Given(IdGenerator):
        """The identifiers are the request's; only the event loop records spans."""

        trace_id = 0
        span_id = 0

        def generate_trace_id(self) -> int:
            return self.trace_id

        def generate_span_id(self) -> int:
            return self.span_id

    return Given()


def _counted(exporter: SpanExporter, export: SpanExport) -> SpanExporter:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Counted(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = exporter.export(spans)
            export.sending(len(spans))
            export.told(len(spans), is_taken=result is SpanExportResult.SUCCESS)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Counted()
