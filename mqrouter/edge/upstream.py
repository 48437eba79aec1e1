"""An OpenAI-compatible server as a tier: streamed chat completions, every failure translated once."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from mqrouter.core.answer_check import mended
from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.edge.sse import SseParser
from mqrouter.errors import CredentialsError, PermanentError, TransientError, UnreachableError

log = structlog.get_logger("upstream")

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_ERROR_BYTES = 2048
MAX_NAME_CHARS = 128
MAX_RETRY_AFTER_S = 86_400.0  # a server that asks for more is mistaken, and would be forgotten for good
PROBE_TIMEOUT_S = 3.0
END_TIMEOUT_S = 0.1
QUICK_TRIES = 2  # within one attempt: a kept-alive connection that died is not the tier's fault


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    name: str
    url: str
    model: str
    api_key: SecretStr | None
    max_tokens: int
    temperature: float
    concurrency: int
    connect_timeout_s: float
    first_token_timeout_s: float
    idle_timeout_s: float


class _DroppedError(TransientError):
    """Try once more at once: the connection went away before the server had said anything."""


class _Resolver(AbstractResolver):
    """The system's name look-up, on a thread that the process does not wait for at its end: it may hang for long."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where there is no such name."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def end(results: list[ResolveResult], error: OSError | None) -> None:
            if found.done():
                return  # nobody waits any more
            if error is None:
                found.set_result(results)
            else:
                found.set_exception(error)

        def run() -> None:
            results: list[ResolveResult] = []
            error = None
            try:
                results = _look_up(host, port, family)
            except OSError as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended meanwhile
                loop.call_soon_threadsafe(end, results, error)

        threading.Thread(target=run, name="upstream.resolve", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Nothing is kept."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=flags)
        for kind, _, proto, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
    ]


class OpenAiClient:
    """Use as an async context manager; it owns its connections."""

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options
        self._url = options.url.rstrip("/")

    async def __aenter__(self) -> OpenAiClient:
        headers = {"User-Agent": "mqrouter"}
        if self._options.api_key is not None:
            headers["Authorization"] = f"Bearer {self._options.api_key.get_secret_value()}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=self._options.concurrency + 1, resolver=_Resolver()),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._options.connect_timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """Yields text as it comes and Done at its true end; a stream cut before that is a TransientError."""
        response = await self._post(call)
        try:
            parser = _Completion(self._options.model)
            limit_s = self._options.first_token_timeout_s
            async for chunk in _chunks(response, limit_s, self._options.idle_timeout_s):
                for event in parser.feed(chunk):
                    if isinstance(event, Done):
                        await _read_to_end(response)
                    yield event
                    if isinstance(event, Done):
                        return
            for event in parser.close():
                yield event
        finally:
            response.close()

    async def probe(self) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
            async with self._session.get(f"{self._url}/models", timeout=timeout, allow_redirects=False) as response:
                # A server without this list still shows that it is up; a gateway's 5xx shows the opposite.
                return response.status < 300 or response.status in (400, 404, 405, 422)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _post(self, call: TierCall) -> aiohttp.ClientResponse:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(QUICK_TRIES),
            wait=wait_random_exponential(multiplier=0.05, max=0.25),
            retry=retry_if_exception_type(_DroppedError),
            before_sleep=self._log_retry,
            reraise=True,
        )
        response: aiohttp.ClientResponse = await retrying(self._post_once, call)
        return response

    def _log_retry(self, state: RetryCallState) -> None:
        log.debug("upstream.connection_replaced", tier=self._options.name, attempt=state.attempt_number)

    async def _post_once(self, call: TierCall) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(self._options.first_token_timeout_s):
                response = await self._session.post(
                    f"{self._url}/chat/completions",
                    json=self._body(call),
                    headers={"Idempotency-Key": call.request_id},
                    allow_redirects=False,  # a question goes to the configured tier and nowhere else
                )
        except TimeoutError as error:
            raise _timeout_error(error, self._options) from error
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(_connection_error(error)) from error
        except aiohttp.ClientConnectionError as error:  # there was a connection, and it ended or was reset
            raise _DroppedError("the server closed the connection without an answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"{type(error).__name__}: {error}") from error
        if response.status >= 300:
            try:
                raise await _refusal(response)
            finally:
                response.close()
        return response

    def _body(self, call: TierCall) -> dict[str, Any]:
        # No null fields: llama.cpp's server refuses them.
        return {
            "model": self._options.model,
            "messages": [{"role": message.role, "content": message.content} for message in call.messages],
            "max_tokens": self._options.max_tokens,
            "temperature": self._options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def _connection_error(error: aiohttp.ClientConnectionError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return f"cannot connect: {error}"


def _timeout_error(error: TimeoutError, options: UpstreamOptions) -> TransientError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UnreachableError(f"no connection within {options.connect_timeout_s:g} s")
    return TransientError(f"no answer within {options.first_token_timeout_s:g} s")


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    """Takes what follows the answer, if it comes at once: only a body read to its end leaves a reusable connection."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while await response.content.readany():
                pass


async def _chunks(
    response: aiohttp.ClientResponse, first_timeout_s: float, idle_timeout_s: float
) -> AsyncGenerator[bytes, None]:
    """Yields the body as it comes, bounded in size and in silence."""
    total, limit_s = 0, first_timeout_s
    while True:
        try:
            async with asyncio.timeout(limit_s):
                chunk = await response.content.readany()
        except TimeoutError as error:
            raise TransientError(f"silent for {limit_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"the answer broke off: {type(error).__name__}") from error
        if not chunk:
            return
        total += len(chunk)
        if total > MAX_ANSWER_BYTES:
            raise TransientError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        limit_s = idle_timeout_s
        yield chunk


class _Completion:
    """Reads one chat completion, streamed or whole; what is not one is a TransientError."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._sse = SseParser()
        self._whole = b""
        self._is_stream: bool | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> list[TierEvent]:
        if self._is_stream is None and (start := (self._whole + chunk).lstrip()):
            self._is_stream = not start.startswith(b"{")  # a server that ignores "stream" sends one object
            chunk, self._whole = self._whole + chunk, b""
        if not self._is_stream:
            self._whole += chunk
            return []
        try:
            payloads = self._sse.feed(chunk)
        except ValueError as error:
            raise TransientError(str(error)) from error
        return [event for payload in payloads for event in self._event(payload)]

    def close(self) -> list[TierEvent]:
        """The body has ended: what is missing now stays missing."""
        if self._is_stream is False:
            return self._from_whole(_object(self._whole))
        if self._finish_reason is None:
            raise TransientError("the stream was cut before its end")
        return [self._done()]

    def _event(self, payload: bytes) -> list[TierEvent]:
        if payload.strip() == b"[DONE]":
            if self._finish_reason is None:
                raise TransientError("the stream ended without a finish_reason")
            return [self._done()]
        value = _object(payload)
        self._note(value)
        text = ""
        for choice in _choices(value):
            text += _content(choice.get("delta"))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return [Delta(text)] if text else []

    def _from_whole(self, value: dict[str, Any]) -> list[TierEvent]:
        self._note(value)
        choices = _choices(value)
        if not choices:
            raise TransientError("the answer has no choices")
        self._finish_reason = choices[0].get("finish_reason") or "stop"
        return [Delta(_content(choices[0].get("message"))), self._done()]

    def _note(self, value: dict[str, Any]) -> None:
        if value.get("error"):
            raise TransientError("the server failed in its answer", detail=_message(value))
        if isinstance(value.get("model"), str) and value["model"]:
            self._model = mended(value["model"])[:MAX_NAME_CHARS]
        if isinstance(value.get("usage"), dict):
            self._usage = value["usage"]

    def _done(self) -> Done:
        return Done(
            finish_reason="length" if self._finish_reason == "length" else "stop",
            model=self._model,
            prompt_tokens=_count(self._usage.get("prompt_tokens")),
            completion_tokens=_count(self._usage.get("completion_tokens")),
        )


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise TransientError("the answer is not valid JSON") from error
    if not isinstance(value, dict):
        raise TransientError("the answer is not a JSON object")
    return value


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _content(message: object) -> str:
    """Returns the text of a delta or a message; servers leave either out, or null, where there is none."""
    content = message.get("content") if isinstance(message, dict) else message
    if content is None:
        return ""
    if not isinstance(message, dict) or not isinstance(content, str):
        raise TransientError("the answer is not text")
    return content


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _message(value: dict[str, Any]) -> str:
    error = value.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return "" if text is None else mended(str(text))[:200]


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    """Returns what a status of 300 and above means for the caller."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            body = await response.content.read(MAX_ERROR_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError):
        body = b""
    text = f"HTTP {response.status} {response.reason or ''}".strip()
    detail = ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        detail = _message(json.loads(body))
    if response.status < 400:  # a captive portal, as likely as a moved server: neither has refused the question
        return UnreachableError(f"{text}: it redirects, and a question goes nowhere but to the configured address")
    if response.status in (401, 403):
        return CredentialsError(text, detail=detail)
    if response.status in (408, 425, 429) or response.status >= 500:
        after_s = retry_after_s(response.headers.get("Retry-After"), _server_time_s(response))
        return TransientError(text, detail=detail, retry_after_s=after_s)
    return PermanentError(text, detail=detail)


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
