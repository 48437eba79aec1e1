"""What changes, as it changes: a stream of small states for whoever looks, and nothing done while nobody does."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.routes import Call, Route, page
from mqrouter.edge.web.sessions import Sessions
from mqrouter.errors import StoreError

log = structlog.get_logger("http")

MAX_STREAMS = 16
STEP_S = 1.0
HEARTBEAT_S = 15.0
RETRY_MS = 5_000


class Live:
    """`snapshot` is taken once a step, however many look."""

    def __init__(
        self, snapshot: Callable[[], Awaitable[dict[str, Any]]], sessions: Sessions, step_s: float = STEP_S
    ) -> None:
        self._snapshot = snapshot
        self._sessions = sessions
        self._step_s = step_s
        self._closing = asyncio.Event()
        self._turn = asyncio.Lock()
        self._latest: Mapping[str, Any] | None = None
        self._taken_s = 0.0
        self.streams = 0

    def routes(self) -> list[Route]:
        return [
            page("GET", "/events", Role.VIEWER, self.stream, "Changes as they come."),
            page("GET", "/live", Role.VIEWER, self.once, "The state, once."),
        ]

    def close(self) -> None:
        self._closing.set()

    async def once(self, _call: Call) -> object:
        return await self._state()

    async def _state(self) -> Mapping[str, Any]:
        async with self._turn:
            now_s = _now_s()
            if self._latest is None or now_s - self._taken_s >= 0.9 * self._step_s:
                self._latest, self._taken_s = await self._snapshot(), now_s
            return self._latest

    async def stream(self, call: Call) -> web.StreamResponse:
        """Ends when the browser is gone, its session is over, or the daemon stops."""
        if self.streams >= MAX_STREAMS or self._closing.is_set():
            raise ApiError(503, "too_many_streams", "too many pages are open: this one asks from time to time instead")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self.streams += 1
        try:
            with suppress(ConnectionError):  # the browser may be gone before the first word
                await response.prepare(call.request)
                await self._tell(call.request, response)
        finally:
            self.streams -= 1
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(f"retry: {RETRY_MS}\n\n".encode())
        told, told_s = "", _now_s()
        self._taken_s = -math.inf  # the page may be newer than what was taken last, and must not be set back
        session = self._sessions.id_of(request)
        while self._goes_on(request, session):
            now_s = _now_s()
            state = await self._state_or_trouble()
            if not self._goes_on(request, session):
                return  # it took a while, and what came in meanwhile is not for who logged out
            text = json.dumps({name: value for name, value in state.items() if name != "now_ms"}, sort_keys=True)
            if text != told:
                await response.write(f"data: {json.dumps(state)}\n\n".encode())
                told, told_s = text, now_s
            elif now_s - told_s >= HEARTBEAT_S:
                await response.write(b"event: beat\ndata: -\n\n")  # not a comment: the page hears that nothing is lost
                told_s = now_s
            with suppress(TimeoutError):
                async with asyncio.timeout(self._step_s):
                    await self._closing.wait()

    def _goes_on(self, request: web.Request, session: str | None) -> bool:
        is_heard = request.transport is not None and not request.transport.is_closing()
        return is_heard and not self._closing.is_set() and (session is None or self._sessions.is_open(session))

    async def _state_or_trouble(self) -> Mapping[str, Any]:
        try:
            return await self._state()
        except StoreError as error:
            log.warning("http.state_not_read", error=str(error))
            return {"trouble": "the database cannot be read"}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
