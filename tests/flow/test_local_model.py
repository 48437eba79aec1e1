"""The local model's memory is given back when nobody asks, and before the kernel takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from fakes import FakeClock, running, until

from mqrouter.core.memory_guard import MemoryLimits, MemoryReading
from mqrouter.flow import local_model
from mqrouter.flow.local_model import Keeper, KeepLimits

LIMITS = KeepLimits(MemoryLimits(150.0, 400.0, 20.0), idle_unload_s=60.0)


@dataclass
class Worker:
    pid: int | None = 7
    model_mb: float = 98.0
    idle_s: float = 0.0
    unloaded: list[tuple[str, float]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def unload(self, why: str, *, if_idle_s: float = 0.0) -> None:
        self.unloaded.append((why, if_idle_s))

    async def end_now(self, why: str) -> None:
        self.ended.append(why)


@dataclass
class Memory:
    available_mb: float = 900.0
    worker_mb: float | None = 200.0

    def read(self) -> MemoryReading:
        return MemoryReading(self.available_mb, 0.0)

    def resident_mb(self, pid: int) -> float | None:
        assert pid == 7
        return self.worker_mb


class Stage:
    def __init__(self, limits: KeepLimits = LIMITS) -> None:
        self.worker, self.memory, self.clock = Worker(), Memory(), FakeClock()
        self.keeper = Keeper(self.worker, self.memory, limits, self.clock.monotonic_s)


@pytest.mark.parametrize(("idle_s", "unloaded"), [(59.9, []), (60.0, [("idle for 60 s", 60.0)])])
async def test_idle_model_is_unloaded(idle_s: float, unloaded: list[tuple[str, float]]) -> None:
    stage = Stage()
    stage.worker.idle_s = idle_s
    await stage.keeper.look()
    assert stage.worker.unloaded == unloaded


async def test_idle_model_may_stay_for_ever() -> None:
    stage = Stage(KeepLimits(LIMITS.memory, idle_unload_s=None))
    stage.worker.idle_s = 1e9
    await stage.keeper.look()
    assert stage.worker.unloaded == []


async def test_model_is_ended_at_once_where_memory_runs_out() -> None:
    stage = Stage()
    stage.memory.available_mb = 149.0
    await stage.keeper.look()
    assert (stage.worker.unloaded, stage.worker.ended) == ([], ["149 MB of memory available, 150 MB are kept free"])


async def test_worker_over_its_limit_is_restarted_after_its_answer_and_not_in_a_loop() -> None:
    stage = Stage()
    stage.memory.worker_mb = 401.0
    for _ in range(3):
        await stage.keeper.look()
        stage.clock.advance(1.0)
    assert stage.worker.unloaded == [("the worker took 401 MB, its limit is 400 MB", 0.0)]
    stage.clock.advance(local_model.RESTART_EVERY_S)
    await stage.keeper.look()
    assert len(stage.worker.unloaded) == 2


async def test_model_that_is_not_loaded_needs_no_care() -> None:
    stage = Stage()
    stage.worker.pid, stage.memory.available_mb = None, 0.0
    await stage.keeper.look()
    assert stage.worker.ended == []


async def test_keeper_looks_again_and_again(clock: FakeClock) -> None:
    stage = Stage()
    async with running(stage.keeper.run):
        stage.memory.available_mb = 0.0
        await until(lambda: len(stage.worker.ended) == 1)
        clock.advance(local_model.CHECK_EVERY_S)
        await until(lambda: len(stage.worker.ended) == 2)
