"""Sending spans: bounded, never waited for, and said where it cannot be."""

from __future__ import annotations

import importlib.util
import socket
import time
from collections.abc import Iterator

import pytest

from mqrouter import wiring
from mqrouter.core.traces import Kind, Span, TraceContext
from mqrouter.edge.spans import MAX_WAITING, SpanExport, SpanOptions, why_missing
from mqrouter.errors import ConfigError
from mqrouter.settings import Settings, TraceSettings

CONTEXT = TraceContext("a" * 32, "b" * 16, True)
SPAN = Span("accept", Kind.CONSUMER, CONTEXT, None, 1_000, 2_000, {"mqrouter.tier": "hub"})


@pytest.fixture
def silent() -> Iterator[int]:
    """A collector that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


async def test_beyond_the_limit_spans_are_dropped_and_nobody_waits(silent: int) -> None:
    export = SpanExport(SpanOptions(f"http://127.0.0.1:{silent}/v1/traces", "farm", "1"))
    async with export:
        for _ in range(MAX_WAITING + 100):
            export.record(SPAN)
        assert export.counts["dropped"] == 100
        closing_s = time.monotonic()
    assert time.monotonic() - closing_s < 10, "the sender's own limit is not waited for"


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_missing() is None

    def gone(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", gone)
    settings = Settings(traces=TraceSettings(enabled=True))
    with pytest.raises(ConfigError, match=r"traces.enabled: .*pip install 'mqrouter\[otel\]'"):
        wiring.span_export(settings)
    assert wiring.span_export(Settings()) is None
