"""What the memory of the machine allows a local model: rules on readings, in megabytes (10^6 bytes)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    min_free_mb: float
    max_worker_mb: float | None
    """None: twice the model's file and HEADROOM_MB."""
    max_pressure: float
    """Percent of the last ten seconds in which every task stood still for want of memory."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """`available_mb` is the least of what the machine and the control groups leave; `pressure` None where unknown."""

    available_mb: float
    pressure: float | None


class Step(Enum):
    """What the guard wants of a loaded model."""

    KEEP = auto()
    UNLOAD = auto()
    """At once, also in the middle of an answer: the kernel would end something else."""
    RESTART = auto()
    """After the answer under way."""


HEADROOM_MB = 512.0


def why_not_load(reading: MemoryReading, limits: MemoryLimits, model_mb: float) -> str | None:
    """Returns why a model of that size must not be loaded now, or None."""
    needed_mb = limits.min_free_mb + model_mb
    if reading.available_mb < needed_mb:
        return (
            f"not enough memory for the local model: {reading.available_mb:.0f} MB available,"
            f" {needed_mb:.0f} MB needed ({model_mb:.0f} for the model, {limits.min_free_mb:.0f} kept free)"
        )
    return _why_under_pressure(reading, limits)


def judge_loaded(
    reading: MemoryReading, limits: MemoryLimits, worker_mb: float | None, model_mb: float
) -> tuple[Step, str]:
    """Returns what to do with a loaded model, and why."""
    if reading.available_mb < limits.min_free_mb:
        why = f"{reading.available_mb:.0f} MB of memory available, {limits.min_free_mb:.0f} MB are kept free"
        return Step.UNLOAD, why
    if (pressure := _why_under_pressure(reading, limits)) is not None:
        return Step.UNLOAD, pressure
    most_mb = limits.max_worker_mb
    if most_mb is None:
        most_mb = 2 * model_mb + HEADROOM_MB
    if worker_mb is not None and worker_mb > most_mb:
        return Step.RESTART, f"the worker took {worker_mb:.0f} MB, its limit is {most_mb:.0f} MB"
    return Step.KEEP, ""


def _why_under_pressure(reading: MemoryReading, limits: MemoryLimits) -> str | None:
    if reading.pressure is None or reading.pressure <= limits.max_pressure:
        return None
    return (
        f"memory pressure: everything stood still {reading.pressure:.0f} % of the time, limit {limits.max_pressure:g} %"
    )
