"""structlog: JSON off a terminal, readable on one, and never the text of a question."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

TEXT_FIELDS = frozenset(
    {"question", "answer", "payload", "messages", "headers", "authorization", "api_key", "password"}
)


def configure(*, level: str, fmt: str, include_text: bool, stream: TextIO | None = None) -> None:
    """Everything logged from here on has this form. `fmt` is auto, json or console."""
    stream = sys.stderr if stream is None else stream
    is_console = fmt == "console" or (fmt == "auto" and stream.isatty())
    renderer: Any = (
        # rich's tracebacks would show local variables: questions and keys among them
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer(ensure_ascii=True)  # control characters cannot forge a line
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if include_text else [_redact]),
            *([_escape] if is_console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,  # the level may change with a reload
    )


def _escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A topic may hold what a terminal obeys; JSON escapes it by itself."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(char if char.isprintable() else repr(char)[1:-1] for char in value)
    return event


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in TEXT_FIELDS & event.keys():
        event[name] = "[redacted]"
    return event
