"""Stage 5, upkeep: what the clock alone brings about: waits that end, requests that expire, rows to delete."""

from __future__ import annotations

import asyncio

import structlog

from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.errors import ErrorCode, StoreError, StoreFatalError
from mqrouter.flow.ports import Clock, Store
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("upkeep")

TICK_S = 0.25
PURGE_EVERY_S = 60.0


class Upkeep:
    def __init__(
        self, store: Store, board: TierBoard, clock: Clock, *, retain_finished_s: float, answered: Wakeup
    ) -> None:
        self._store = store
        self._board = board
        self._clock = clock
        self._retain_ms = int(retain_finished_s * 1000)
        self._answered = answered
        self._purge_at_s = 0.0

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
        due_ms = await self._store.next_due_ms()
        if due_ms is not None and due_ms <= now_ms:  # an idle gateway must not wear out its card
            await self._handle_due(now_ms)
        if self._clock.monotonic_s() >= self._purge_at_s:
            self._purge_at_s = self._clock.monotonic_s() + PURGE_EVERY_S
            await self._purge(now_ms - self._retain_ms)

    async def _handle_due(self, now_ms: int) -> None:
        requests, answers = await self._store.wake_due(now_ms)
        if requests:
            self._board.wake_all()
        given_up = await self._store.give_up_answers(now_ms)
        if given_up:
            log.warning("upkeep.answers_given_up", answers=given_up)
        for request in await self._store.expired(now_ms):
            answer = Answer(
                error=ErrorCode.EXPIRED,
                error_message="no answer within the time to live",
                route=request.route,
                latency_ms=now_ms - request.received_at_ms,
            )
            answers += await self._store.finish(request, answer, State.EXPIRED, now_ms)
        if answers:
            self._answered.give()

    async def _purge(self, finished_before_ms: int) -> None:
        while purged := await self._store.purge(finished_before_ms):
            log.info("upkeep.requests_purged", requests=purged)
