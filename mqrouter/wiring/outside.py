"""Who may look from outside, and where spans go."""

from __future__ import annotations

import time

from pydantic import SecretStr

from mqrouter import __version__
from mqrouter.edge import spans
from mqrouter.edge.spans import SpanExport, SpanOptions
from mqrouter.edge.web.options import TcpOptions, WebOptions
from mqrouter.errors import ConfigError, Problem
from mqrouter.flow.ports import SpanSink
from mqrouter.flow.tracing import Tracing
from mqrouter.settings import Secret, Settings, why_no_token
from mqrouter.wiring.secrets import secret


def web_options(settings: Settings) -> WebOptions:
    """Raises ConfigError where a token's reference leads nowhere, or to something too easily guessed."""
    http = settings.http
    if not http.enabled:
        return WebOptions(settings.control_socket)
    viewer, operator = (
        _token(http.viewer_token, "http.viewer_token"),
        _token(http.operator_token, "http.operator_token"),
    )
    return WebOptions(settings.control_socket, TcpOptions(http.host, http.port, viewer, operator, tuple(http.hosts)))


def _token(reference: Secret | None, key: str) -> SecretStr | None:
    token = secret(reference, key)
    if token is not None and (why := why_no_token(token)) is not None:
        raise ConfigError([Problem(key, why)])
    return token


def span_export(settings: Settings) -> SpanExport | None:
    """Returns what sends spans, not yet begun; None where that is off. Raises ConfigError without the extra."""
    if not settings.traces.enabled:
        return None
    if (why := spans.why_missing()) is not None:
        raise ConfigError([Problem("traces.enabled", why)])
    return SpanExport(SpanOptions(settings.traces.endpoint, settings.gateway.name, __version__))


def tracing(settings: Settings, sink: SpanSink) -> Tracing:
    rules = settings.traces
    return Tracing(sink, time.time_ns, ratio=rules.sample_ratio, tells_device=rules.device)
