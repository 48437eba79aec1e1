"""Learning anew from verdicts, on a schedule: the head is only replaced where its held-out quality does not fall."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from mqrouter.errors import MqrouterError, StoreError, StoreFatalError
from mqrouter.flow.ports import Clock

log = structlog.get_logger("auto_tune")

ACTION = "auto_tune"
ACTOR = "mqrouter"
MAX_WAIT_S = 3_600.0  # the schedule follows the gateway's time, which goes on while the machine is off


class TuneStore(Protocol):
    async def count_feedback(self) -> int: ...

    async def latest_action_ms(self, action: str) -> int | None: ...

    async def record_action(self, action: str, target: str, actor: str, now_ms: int) -> None: ...


Retrain = Callable[[], Awaitable[dict[str, Any]]]
"""Learns anew away from the event loop, and returns what `mqrouter train --json` says. Raises MqrouterError."""


@dataclass(frozen=True, slots=True)
class Schedule:
    every_s: float
    min_feedback: int


class AutoTune:
    """`on_replaced` is called once a new head is in place."""

    def __init__(
        self,
        store: TuneStore,
        clock: Clock,
        schedule: Schedule,
        retrain: Retrain,
        on_replaced: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._schedule = schedule
        self._retrain = retrain
        self._on_replaced = on_replaced

    async def run(self) -> None:
        while True:
            wait_s = MAX_WAIT_S
            try:
                wait_s = await self._run_if_due()
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("auto_tune.store_failed", error=str(error))
            await asyncio.sleep(min(max(wait_s, 0.05), MAX_WAIT_S))

    async def _run_if_due(self) -> float:
        """Returns the seconds until it is worth looking again."""
        latest_ms = await self._store.latest_action_ms(ACTION)
        now_ms = self._clock.now_ms()
        due_ms = now_ms if latest_ms is None else latest_ms + int(1000 * self._schedule.every_s)
        if due_ms > now_ms:
            return (due_ms - now_ms) / 1000
        found = await self._store.count_feedback()
        if found < self._schedule.min_feedback:
            log.debug("auto_tune.feedback_awaited", found=found, wanted=self._schedule.min_feedback)
            return min(self._schedule.every_s, MAX_WAIT_S)
        outcome = await self._tune(found)
        await self._store.record_action(ACTION, outcome, ACTOR, self._clock.now_ms())
        return self._schedule.every_s

    async def _tune(self, verdicts: int) -> str:
        """Returns what came of it, for the record of actions."""
        started_s = self._clock.monotonic_s()
        log.info("auto_tune.started", feedback=verdicts)
        try:
            found = await self._retrain()
            fields = {name: found.get(name) for name in ("accuracy", "auroc", "examples")}
            fields["elapsed_ms"] = round(1000 * (self._clock.monotonic_s() - started_s))
            if not found["replaced"]:
                log.info("auto_tune.head_kept", why=found["why"], **fields)
                return f"head kept: {found['why']}"
            await self._on_replaced()
        except StoreError:
            raise
        except MqrouterError as error:
            log.error("auto_tune.failed", error=str(error))
            return f"failed: {error}"
        log.info("auto_tune.head_replaced", **fields)
        return "head replaced"
