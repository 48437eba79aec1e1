"""The local model's memory: given back when nobody asks, and before the kernel takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mqrouter.core.memory_guard import MemoryLimits, MemoryReading, Step, judge_loaded

CHECK_EVERY_S = 1.0
RESTART_EVERY_S = 30.0
"""A worker over its limit is restarted no more often: one that is over it by its mere size must not load for ever."""


class LocalWorker(Protocol):
    """The process that holds the model."""

    @property
    def pid(self) -> int | None: ...

    @property
    def model_mb(self) -> float: ...

    @property
    def idle_s(self) -> float: ...

    async def unload(self, why: str, *, if_idle_s: float = 0.0) -> None: ...

    async def end_now(self, why: str) -> None: ...


class Memory(Protocol):
    def read(self) -> MemoryReading: ...

    def resident_mb(self, pid: int) -> float | None: ...


@dataclass(frozen=True, slots=True)
class KeepLimits:
    memory: MemoryLimits
    idle_unload_s: float | None
    """None: never."""


class Keeper:
    """Watches one local model while it is loaded."""

    def __init__(
        self, worker: LocalWorker, memory: Memory, limits: KeepLimits, monotonic_s: Callable[[], float]
    ) -> None:
        self._worker = worker
        self._memory = memory
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._restarted_at_s: float | None = None

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(CHECK_EVERY_S)

    async def look(self) -> None:
        """The model stays, or is unloaded by now."""
        pid = self._worker.pid
        if pid is None:
            return
        limits = self._limits
        step, why = judge_loaded(
            self._memory.read(), limits.memory, self._memory.resident_mb(pid), self._worker.model_mb
        )
        if step is Step.UNLOAD:
            await self._worker.end_now(why)
        elif step is Step.RESTART and self._may_restart():
            self._restarted_at_s = self._monotonic_s()
            await self._worker.unload(why)
        elif limits.idle_unload_s is not None and self._worker.idle_s >= limits.idle_unload_s:
            await self._worker.unload(f"idle for {limits.idle_unload_s:g} s", if_idle_s=limits.idle_unload_s)

    def _may_restart(self) -> bool:
        return self._restarted_at_s is None or self._monotonic_s() - self._restarted_at_s >= RESTART_EVERY_S
