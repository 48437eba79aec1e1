"""Stage 3, forward: one lane per tier takes the requests it is first in line for and asks the tier."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mqrouter.core.breaker import BreakerState
from mqrouter.core.records import StoredRequest
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.attempt import Attempts, Verdict
from mqrouter.flow.ports import Clock, Store, Telemetry, TierClient
from mqrouter.flow.telemetry import NoTelemetry
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.tracing import NoTraces, Traces

log = structlog.get_logger("forward")

STORE_RETRY_S = 1.0
MAX_LIMIT_WAIT_S = 60.0  # midnight comes sooner by the gateway's time where the machine slept meanwhile


async def nothing_to_refresh() -> None:
    """Of a lane that nobody relieves."""


class Lane:
    """Serves one tier. After an outage its concurrency starts at one and doubles with each success."""

    def __init__(
        self,
        name: str,
        client: TierClient,
        attempts: Attempts,
        store: Store,
        board: TierBoard,
        clock: Clock,
        *,
        concurrency: int,
        refresh_load: Callable[[], Awaitable[None]] = nothing_to_refresh,
        telemetry: Telemetry | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._telemetry = telemetry or NoTelemetry()
        self._traces = traces or NoTraces()
        self.name = name
        self._client = client
        self._attempts = attempts
        self._store = store
        self._board = board
        self._breaker = board.breakers[name]
        self._wakeup = board.wakeups[name]
        self._clock = clock
        self._concurrency = concurrency
        self._cap = concurrency
        self._is_stopping = False
        self._probe: asyncio.Task[bool] | None = None
        self._refresh_load = refresh_load

    @property
    def in_flight(self) -> int:
        return self._board.in_flight[self.name]

    def stop(self) -> None:
        """Takes no more requests; those in flight may finish."""
        self._is_stopping = True
        if self._probe is not None:
            self._probe.cancel()  # nobody needs to know any more, and a probe may hang
        self._wakeup.give()

    async def run(self) -> None:
        """Returns after `stop`, when nothing is in flight any more."""
        async with asyncio.TaskGroup() as attempts:
            while not self._is_stopping:
                await self._probe_if_due(attempts)
                claimed = await self._claim()
                for request in claimed:
                    self._board.in_flight[self.name] += 1
                    attempts.create_task(self._attempt(request), name=f"forward.{self.name}.{request.id}")
                if not claimed:
                    await self._wakeup.wait(self._next_time_s())

    async def _probe_if_due(self, group: asyncio.TaskGroup) -> None:
        if self.name in self._board.paused or not self._breaker.is_probe_due(self._clock.monotonic_s()):
            return
        self._cap = 1
        self._probe = group.create_task(self._client.probe(), name=f"probe.{self.name}")
        await asyncio.wait([self._probe])
        if not self._probe.cancelled():
            self._board.probed(self.name, self._probe.result())

    async def _claim(self) -> list[StoredRequest]:
        cap = 1 if self._breaker.state is BreakerState.HALF_OPEN else self._cap
        room = cap - self.in_flight
        if room <= 0:
            return []
        try:
            await self._refresh_load()
            todo_lists = self._board.todo_lists_of(self.name, self._store.todo_lists)
            if not todo_lists:
                return []
            claimed = await self._store.claim(self.name, todo_lists, room, self._clock.now_ms())
        except StoreFatalError:
            raise
        except StoreError as error:
            log.error("forward.claim_failed", tier=self.name, error=str(error))
            await asyncio.sleep(STORE_RETRY_S)
            return []
        self._board.check_limit(self.name)
        return claimed

    def _next_time_s(self) -> float | None:
        """Returns how long nothing can change by itself: until the next probe, or the end of a hold or a limit."""
        if self.name in self._board.paused:
            return None
        now_s = self._clock.monotonic_s()
        if self._breaker.state is BreakerState.OPEN:
            return max(0.0, self._breaker.probe_at_s - now_s)
        wait_s = max(self._breaker.held_s(now_s), min(self._board.over_s(self.name), MAX_LIMIT_WAIT_S))
        return wait_s if wait_s > 0 else None

    async def _timed(self, request: StoredRequest) -> Verdict:
        if request.lease == 1:  # its first attempt at all
            waited_s = (self._clock.now_ms() - request.received_at_ms) / 1000
            self._telemetry.waited(self.name, waited_s)
            self._traces.waited(request, self.name, waited_s)
        started_s = self._clock.monotonic_s()
        verdict = await self._attempts.make(request)
        self._telemetry.attempted(self.name, verdict.name.lower(), self._clock.monotonic_s() - started_s)
        return verdict

    async def _attempt(self, request: StoredRequest) -> None:
        try:
            verdict = await self._timed(request)
            if verdict is Verdict.ANSWERED:
                self._cap = min(self._concurrency, self._cap * 2)
            elif verdict is Verdict.UNREACHABLE:
                self._cap = 1
        finally:
            self._board.in_flight[self.name] -= 1
            self._board.check_limit(self.name)
            if request.crashes:  # another lane's suspect may have waited for this one's end
                self._board.wake_all()
            self._wakeup.give()
