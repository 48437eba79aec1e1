"""Where aiohttp answers and logs by itself, before any of our code is asked: it then keeps to our own ways."""

from __future__ import annotations

import logging

import structlog
from aiohttp import HttpVersion11, hdrs, web, web_response, web_urldispatcher
from aiohttp.http_exceptions import HttpProcessingError

from mqrouter.edge.web.errors import ApiError

log = structlog.get_logger("http")


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """aiohttp's own quotes the header in its answer, and fails with 500 where that is not UTF-8."""
    if request.version != HttpVersion11:
        return None
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return ApiError(417, "expectation_failed", "only 100-continue can be expected").response()
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # nothing of the answer itself is sent yet
    return None


class _Told(logging.Handler):
    """Into the daemon's log, without what was sent: there may be questions in it."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.info("http.request_unreadable", error=type(error).__name__)
        else:
            log.error("http.connection_failed", error=record.getMessage(), exc_info=record.exc_info)


def wire_log() -> logging.Logger:
    """Returns the logger for aiohttp's server."""
    logger = logging.Logger("mqrouter.http", logging.WARNING)
    logger.addHandler(_Told())
    return logger


web_urldispatcher._default_expect_handler = _expect  # type: ignore[assignment]
web_response.SERVER_SOFTWARE = "mqrouter"  # type: ignore[attr-defined]  # not which libraries, nor their versions
