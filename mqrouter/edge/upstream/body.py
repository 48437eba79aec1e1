"""The body of an answer as it comes: bounded in size, and in the server's silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import aiohttp

from mqrouter.core.events import Done, TierEvent
from mqrouter.edge.upstream.wire import AnswerReader
from mqrouter.errors import TransientError

MAX_ANSWER_BYTES = 4 * 1024 * 1024
END_TIMEOUT_S = 0.1


class Patience:
    """How long the server may still be silent: until the first token from the request's start, then between two."""

    def __init__(self, first_token_timeout_s: float, idle_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = first_token_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._has_begun = False
        self.ends_at_s = self._loop.time() + first_token_timeout_s
        """By the event loop's clock."""

    @property
    def reason(self) -> str:
        return f"{'silent for' if self._has_begun else 'no token within'} {self._limit_s:g} s"

    def heard(self, *, has_begun: bool) -> None:
        """The server gave a sign of life. Before the first token none prolongs the wait."""
        self._has_begun = self._has_begun or has_begun
        if self._has_begun:
            self._limit_s = self._idle_timeout_s
            self.ends_at_s = self._loop.time() + self._idle_timeout_s


async def read_events(
    response: aiohttp.ClientResponse, reader: AnswerReader, patience: Patience
) -> AsyncGenerator[TierEvent, None]:
    """Yields the answer up to its end. Raises TransientError where it breaks off, stalls or is no answer."""
    async for chunk in _chunks(response, patience):
        found = reader.feed(chunk)
        if found.is_sign_of_life:
            patience.heard(has_begun=found.has_begun)
        for event in found.events:
            if isinstance(event, Done):
                await _read_to_end(response)
            yield event
            if isinstance(event, Done):
                return
    for event in reader.close():
        yield event


async def _chunks(response: aiohttp.ClientResponse, patience: Patience) -> AsyncGenerator[bytes, None]:
    total = 0
    while True:
        try:
            async with asyncio.timeout_at(patience.ends_at_s):
                chunk = await response.content.readany()
        except TimeoutError as error:
            raise TransientError(patience.reason) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"the answer broke off: {type(error).__name__}") from error
        if not chunk:
            return
        total += len(chunk)
        if total > MAX_ANSWER_BYTES:
            raise TransientError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        yield chunk


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    """Takes what follows the answer, if it comes at once: only a body read to its end leaves a reusable connection."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while await response.content.readany():
                pass
