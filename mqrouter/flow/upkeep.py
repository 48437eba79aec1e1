"""Stage 5, upkeep: what the clock alone brings about: waits that end, requests that expire, rows to delete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from mqrouter.core.backoff import Backoff
from mqrouter.core.records import StoredRequest, split_tiers
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.timeline import Anchor, Clocks
from mqrouter.errors import ErrorCode, StoreError, StoreFatalError
from mqrouter.flow.judge import Judge
from mqrouter.flow.ports import Clock, Store
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("upkeep")

TICK_S = 0.25
PURGE_EVERY_S = 60.0
CLOCK_TOLERANCE_MS = 2_000
ANCHOR_EVERY_MS = 86_400_000  # how long a machine was off is counted from its last known moment


class Upkeep:
    def __init__(
        self,
        store: Store,
        board: TierBoard,
        clock: Clock,
        *,
        backoff: Backoff,
        retain_finished_s: float,
        retain_refused_s: float,
        judge: Callable[[], Judge | None],
        machine: Callable[[], Clocks],
        answered: Wakeup,
    ) -> None:
        self._machine = machine
        self._store = store
        self._board = board
        self._clock = clock
        self._backoff = backoff
        self._retain_ms = int(retain_finished_s * 1000)
        self._retain_refused_ms = int(retain_refused_s * 1000)
        self._judge = judge
        self._down: set[str] = set()
        """Tier lists known to have no tier that is up."""
        self._paused: frozenset[str] = frozenset()
        """Routes that wait on an operator's order."""
        self._brought_back = 0
        self._answered = answered
        self._purge_at_s = 0.0
        self._anchor: Anchor | None = None

    async def run(self) -> None:
        while True:
            try:
                await self._tick()
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("upkeep.write_failed", error=str(error))
            await asyncio.sleep(TICK_S)

    async def _tick(self) -> None:
        now_ms = self._clock.now_ms()
        await self._follow_clock(Anchor(now_ms, self._machine()))
        due_ms = await self._store.next_due_ms()
        if due_ms is not None and due_ms <= now_ms:  # an idle gateway must not wear out its card
            await self._handle_due(now_ms)
        await self._restart_stuck_rounds(now_ms)
        await self._end_what_may_not_wait(now_ms)
        if self._clock.monotonic_s() >= self._purge_at_s:
            self._purge_at_s = self._clock.monotonic_s() + PURGE_EVERY_S
            await self._purge(now_ms - self._retain_ms, now_ms - self._retain_refused_ms)

    async def _follow_clock(self, anchor: Anchor) -> None:
        """Where the machine's clock was set, the database knows: at the next boot, only that clock tells the time."""
        if self._anchor is None:  # as it was at the start
            self._anchor = anchor
        by_ms = anchor.offset_ms - self._anchor.offset_ms
        if abs(by_ms) > CLOCK_TOLERANCE_MS:
            log.warning("upkeep.clock_moved", by_s=by_ms / 1000)
        elif anchor.now_ms < self._anchor.now_ms + ANCHOR_EVERY_MS:
            return
        await self._store.set_anchor(anchor)
        self._anchor = anchor

    async def _handle_due(self, now_ms: int) -> None:
        requests, answers = await self._store.wake_due(now_ms)
        if requests:
            self._board.wake_all()
        if answers:
            self._answered.give()
        given_up = await self._store.give_up_answers(now_ms)
        if given_up:
            log.warning("upkeep.answers_given_up", answers=given_up)
        while await self._store.end_dropped(now_ms):
            self._answered.give()
        message = "no answer within the time to live"
        while expired := await self._store.expired(now_ms):
            await self._end_all(
                self._end(request, ErrorCode.EXPIRED, message, State.EXPIRED, now_ms) for request in expired
            )

    async def _end_all(self, ends: Iterable[Awaitable[None]]) -> None:
        """Together, so that they share one sync to disk; what was written is announced even where one failed."""
        try:
            await asyncio.gather(*ends)
        finally:
            self._answered.give()

    async def _end(self, request: StoredRequest, code: ErrorCode, message: str, state: State, now_ms: int) -> None:
        latency_ms = now_ms - request.received_at_ms
        answer = Answer(error=code, error_message=message, route=request.route, latency_ms=latency_ms)
        await self._store.finish(request, answer, state, now_ms)

    async def _restart_stuck_rounds(self, now_ms: int) -> None:
        """A request whose round has only tiers left that are down goes back to all of its tiers."""
        for todo in tuple(self._store.partial_lists):
            if self._board.first_available(split_tiers(todo)) is None:
                await self._store.restart_rounds(todo, now_ms, self._backoff)

    async def _end_what_may_not_wait(self, now_ms: int) -> None:
        """Requests of routes that do not queue end when the last of their tiers goes down, once each time it does."""
        judge, paused = self._judge(), frozenset(self._store.paused_routes)
        if judge is None:
            return
        brought_back = self._store.brought_back
        if not self._paused <= paused or brought_back != self._brought_back:
            self._down.clear()  # a route or a dropped request goes on: its tiers may have gone down meanwhile
        self._paused, self._brought_back = paused, brought_back
        for todo in tuple(self._store.todo_lists):
            if self._board.first_available(split_tiers(todo)) is not None:
                self._down.discard(todo)
            elif todo not in self._down:
                await self._end_waiting(judge, todo, now_ms)
                self._down.add(todo)

    async def _end_waiting(self, judge: Judge, todo: str, now_ms: int) -> None:
        routes = [route for route in judge.impatient_routes() if route not in self._paused]
        while requests := await self._store.waiting_for(todo, routes):
            limits = self._board.why_limited(split_tiers(todo))
            message = f"none of {todo.replace('>', ', ')} can be reached any more{limits}"
            ends = (
                self._end(request, judge.offline_code(request.route), message, State.ANSWERED, now_ms)
                for request in requests
            )
            await self._end_all(ends)

    async def _purge(self, finished_before_ms: int, refused_before_ms: int) -> None:
        while purged := await self._store.purge(finished_before_ms, refused_before_ms):
            log.info("upkeep.requests_purged", requests=purged)
