"""A model server as a tier: asks, reads what comes back, probes and keeps warm, whatever the wire form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from mqrouter.core.events import TierCall, TierEvent
from mqrouter.core.traces import PROPERTY
from mqrouter.edge.upstream.body import Patience, read_events
from mqrouter.edge.upstream.call_log import CallLog
from mqrouter.edge.upstream.connections import DroppedError, open_session, translated
from mqrouter.edge.upstream.options import UpstreamOptions
from mqrouter.edge.upstream.refusals import refusal
from mqrouter.edge.upstream.wire import Wire
from mqrouter.errors import ConfigError, Problem, TransientError

log = structlog.get_logger("upstream")

PROBE_TIMEOUT_S = 3.0
MAX_PROBE_BYTES = 1024 * 1024
QUICK_TRIES = 2  # within one attempt: a kept-alive connection that died is not the tier's fault
HTML = "text/html"


class UpstreamClient:
    """Use as an async context manager; it owns its connections."""

    def __init__(self, options: UpstreamOptions, wire: Wire) -> None:
        self._options = options
        self._wire = wire
        self._url = options.url.rstrip("/")
        self._why_down: str | None = None

    async def __aenter__(self) -> UpstreamClient:
        try:
            self._session = open_session(self._options)
        except OSError as error:
            message = f"{self._options.ca_file} is no file of certificates: {error}"
            raise ConfigError([Problem(f"tiers.{self._options.name}.ca_file", message)]) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """Yields text as it comes and Done at its true end; a stream cut before that is a TransientError."""
        patience = Patience(self._options.first_token_timeout_s, self._options.idle_timeout_s)
        with CallLog(self._options, call) as told:
            response = await self._post(self._wire.body(call), patience, _headers(call))
            try:
                async with aclosing(read_events(response, self._wire.reader(), patience)) as events:
                    async for event in events:
                        told.came(event)
                        yield event
            finally:
                response.close()

    async def warm(self) -> None:
        """The server keeps its model loaded, or has loaded it. Raises what `stream` raises."""
        patience = Patience(self._options.first_token_timeout_s, self._options.idle_timeout_s)
        response = await self._post(self._wire.warming_body(), patience)
        try:
            async with asyncio.timeout_at(patience.ends_at_s):
                await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TransientError(f"not warmed: {type(error).__name__}") from error
        finally:
            response.close()

    async def probe(self) -> bool:
        why = await self._why_not_up()
        if why is not None and why != self._why_down:
            log.warning("upstream.probe_failed", tier=self._options.name, error=why)
        self._why_down = why
        return why is None

    async def _why_not_up(self) -> str | None:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        url = f"{self._url}{self._wire.probe_path}"
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return self._wire.why_not_up(response.status, await _read_some(response))
        except TimeoutError:
            return f"no reply to a probe within {PROBE_TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return str(translated(error, self._options))

    async def _post(
        self, body: dict[str, Any], patience: Patience, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(QUICK_TRIES),
            wait=wait_random_exponential(multiplier=0.05, max=0.25),
            retry=retry_if_exception_type(DroppedError),
            before_sleep=self._log_retry,
            reraise=True,
        )
        response: aiohttp.ClientResponse = await retrying(self._post_once, body, patience, headers)
        return response

    def _log_retry(self, state: RetryCallState) -> None:
        log.debug("upstream.connection_replaced", tier=self._options.name, attempt=state.attempt_number)

    async def _post_once(
        self, body: dict[str, Any], patience: Patience, headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout_at(patience.ends_at_s):
                response = await self._session.post(
                    f"{self._url}{self._wire.chat_path}",
                    json=body,
                    headers=headers,
                    allow_redirects=False,  # a question goes to the configured tier and nowhere else
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise translated(error, self._options) from error
        try:
            if response.status >= 300:
                raise await refusal(response, self._wire)
            if response.content_type == HTML:
                raise TransientError("the reply is a web page, not an answer: is the address right?")
        except BaseException:
            response.close()
            raise
        return response


def _headers(call: TierCall) -> dict[str, str]:
    traced = {} if call.traceparent is None else {PROPERTY: call.traceparent}
    return {"Idempotency-Key": call.request_id} | traced


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    """Returns the body as far as anybody reads it."""
    parts: list[bytes] = []
    size = 0
    while size < MAX_PROBE_BYTES and (chunk := await response.content.readany()):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)
