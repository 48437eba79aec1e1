"""What a status of 300 and above means for the caller, and when to ask again."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time

import aiohttp

from mqrouter.edge.upstream.fields import error_of
from mqrouter.edge.upstream.wire import Wire
from mqrouter.errors import CredentialsError, MqrouterError, PermanentError, TransientError, UnreachableError

MAX_ERROR_BYTES = 2048
MAX_RETRY_AFTER_S = 86_400.0  # a server that asks for more is mistaken, and would be forgotten for good
READ_TIMEOUT_S = 3.0
MAY_PASS = frozenset({408, 425, 429, 499})
"""Of the refusals those that say nothing of the question; 499 is a server that is going down."""


async def refusal(response: aiohttp.ClientResponse, wire: Wire) -> MqrouterError:
    """Returns the error to raise for this response."""
    text = f"HTTP {response.status} {response.reason or ''}".strip()
    if response.status < 400:  # a captive portal, as likely as a moved server: neither has refused the question
        return UnreachableError(f"{text}: it redirects, and a question goes nowhere but to the configured address")
    detail = await _detail(response)
    if response.status in (401, 403):
        return CredentialsError(text, detail=detail)
    if response.status in MAY_PASS or response.status >= 500:
        after_s = retry_after_s(response.headers.get("Retry-After"), _server_time_s(response))
        return TransientError(text, detail=detail, retry_after_s=after_s)
    if remedy := wire.remedy(response.status, detail):
        text = f"{text}: {remedy}"
    return PermanentError(text, detail=detail)


async def _detail(response: aiohttp.ClientResponse) -> str:
    """Returns the server's own wording, empty where it gave none."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            body = await response.content.read(MAX_ERROR_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        return error_of(json.loads(body))
    return ""


def _server_time_s(response: aiohttp.ClientResponse) -> float:
    """Returns the time of day by the server's clock: a date it names counts from that, whatever ours was set to."""
    date = _http_date_s(response.headers.get("Date", ""))
    return time.time() if date is None else date


def _http_date_s(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Returns the seconds a Retry-After header asks for, given as seconds or as a date (RFC 9110, 10.2.3).

    At most a day; None for what is neither.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        after_s = float(value)
    elif (date_s := _http_date_s(value)) is not None:
        after_s = date_s - now_s
    else:
        return None
    return min(max(0.0, after_s), MAX_RETRY_AFTER_S)
