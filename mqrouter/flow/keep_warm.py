"""Keeping a tier's model loaded through quiet times, so that the next question does not wait for a cold load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mqrouter.core.breaker import BreakerState
from mqrouter.core.warmth import WarmRule
from mqrouter.errors import PermanentError, TransientError, UnreachableError
from mqrouter.flow.ports import Clock, WarmableTier
from mqrouter.flow.tiers import TierBoard

log = structlog.get_logger("keep_warm")

MIN_PAUSE_S = 0.05
MAX_PAUSE_S = 15.0  # hours begin and breakers close without anybody saying so here


class KeepWarm:
    """Calls one tier's model by the rule, never one that is down or that an operator holds back."""

    def __init__(
        self,
        name: str,
        client: WarmableTier,
        rule: WarmRule,
        board: TierBoard,
        clock: Clock,
        minute_of_day: Callable[[], int],
    ) -> None:
        self._name = name
        self._client = client
        self._rule = rule
        self._board = board
        self._clock = clock
        self._minute_of_day = minute_of_day
        self._called_at_s = float("-inf")

    async def run(self) -> None:
        while True:
            if self._may_be_called() and self._rule.is_due(self._unused_s(), self._minute_of_day()):
                await self._call()
            await asyncio.sleep(self._pause_s())

    def _may_be_called(self) -> bool:
        is_closed = self._board.breakers[self._name].state is BreakerState.CLOSED
        return is_closed and self._board.is_available(self._name)

    def _unused_s(self) -> float:
        used_at_s = self._board.used_at_s.get(self._name, float("-inf"))
        return self._clock.monotonic_s() - max(used_at_s, self._called_at_s)

    def _pause_s(self) -> float:
        left_s = self._rule.every_s - self._unused_s()
        return MAX_PAUSE_S if left_s <= 0 else min(max(left_s, MIN_PAUSE_S), MAX_PAUSE_S)

    async def _call(self) -> None:
        started_s = self._clock.monotonic_s()
        try:
            await self._client.warm()
        except UnreachableError as error:
            self._board.unreachable(self._name, str(error))
        except (TransientError, PermanentError) as error:
            log.warning("keep_warm.failed", tier=self._name, error=str(error))
        else:
            elapsed_ms = round(1000 * (self._clock.monotonic_s() - started_s))
            log.debug("keep_warm.called", tier=self._name, elapsed_ms=elapsed_ms)
        self._called_at_s = self._clock.monotonic_s()
