"""structlog: JSON off a terminal, readable on one, and never the text of a question."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import structlog

from mqrouter.log_file import LogFile, LogLimits

TEXT_FIELDS = frozenset(
    {"question", "answer", "payload", "messages", "headers", "authorization", "api_key", "password"}
)
NO_LEVELS: Mapping[str, str] = MappingProxyType({})
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # as in sd-daemon(3)

_file: LogFile | None = None


def configure(
    *,
    level: str,
    fmt: str,
    include_text: bool,
    levels: Mapping[str, str] = NO_LEVELS,
    stream: TextIO | LogFile | None = None,
) -> None:
    """Everything logged from here on has this form. `fmt` is auto, json or console.

    `levels` are those of single components: the first word of an event.
    """
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
            *([_by_component(level, levels)] if levels else []),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if include_text else [_redact]),
            *([_escape] if is_console else [structlog.processors.format_exc_info]),
            renderer,
            *([_with_priority] if is_journal(stream) else []),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(map(_number, (level, *levels.values())))),
        logger_factory=structlog.WriteLoggerFactory(stream),  # type: ignore[arg-type]  # writes and flushes, no more
        cache_logger_on_first_use=False,  # the level may change with a reload
    )


def open_file(path: Path | None, limits: LogLimits) -> LogFile | None:
    """Returns the file to log to, opened anew; None without a path. Raises OSError, and the one before stays open."""
    return None if path is None else LogFile(path, limits)


def take_file(file: LogFile | None) -> None:
    """`file` is the one in use; the one before is closed."""
    global _file
    _file, before = file, _file
    if before is not None:
        before.close()


def is_journal(stream: TextIO | LogFile) -> bool:
    """True where `stream` is what systemd connected to its journal, not a pipe or file put in its place."""
    try:
        there = os.fstat(stream.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _by_component(level: str, levels: Mapping[str, str]) -> Callable[[Any, str, Any], Any]:
    numbers, default = {name: _number(own) for name, own in levels.items()}, _number(level)

    def drop(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        component = str(event.get("event", "")).partition(".")[0]
        if _number("error" if method == "exception" else method) < numbers.get(component, default):
            raise structlog.DropEvent
        return event

    return drop


def _with_priority(_logger: Any, method: str, text: Any) -> str:
    """The journal takes each line as an entry, and its priority from the number in front."""
    mark = f"<{PRIORITIES['error' if method == 'exception' else method]}>"
    return "\n".join(mark + line for line in text.split("\n"))


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
