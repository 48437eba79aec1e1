"""A collector of spans: OTLP over HTTP, decoded as the specification has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness import WAIT_S, Signal
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Heard:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty where there is none."""
    started_ns: int
    ended_ns: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """`port` is its own; `raw` is every byte it was sent."""

    port: int
    spans: list[Heard] = field(default_factory=list)
    raw: bytes = b""
    arrived: Signal = field(default_factory=Signal)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def wait_for(self, matches: Callable[[Heard], bool], number: int = 1) -> list[Heard]:
        def found() -> list[Heard] | None:
            spans = [span for span in self.spans if matches(span)]
            return spans if len(spans) >= number else None

        return self.arrived.wait(found, lambda: f"{number} such spans in {self.spans}", 3 * WAIT_S)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            _heard(span, _attributes(of_resource.resource))
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

        def add() -> None:
            self.raw += body
            self.spans += spans

        self.arrived.give(add)


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _heard(span: Any, resource: dict[str, Any]) -> Heard:
    return Heard(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        _attributes(span),
        resource,
    )


def _attributes(holder: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in holder.attributes}
