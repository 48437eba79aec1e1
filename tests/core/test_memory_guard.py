"""When a model may be loaded, and when it has to go."""

from __future__ import annotations

import pytest

from mqrouter.core.memory_guard import MemoryLimits, MemoryReading, Step, judge_loaded, why_not_load

LIMITS = MemoryLimits(min_free_mb=150.0, max_worker_mb=800.0, max_pressure=20.0)


@pytest.mark.parametrize(
    ("available_mb", "pressure", "why"),
    [
        (400.0, 0.0, None),
        (250.0, None, None),
        (249.0, 0.0, "249 MB available, 250 MB needed (100 for the model, 150 kept free)"),
        (400.0, 20.0, None),
        (400.0, 20.5, "stood still"),
    ],
)
def test_model_is_loaded_where_it_fits(available_mb: float, pressure: float | None, why: str | None) -> None:
    found = why_not_load(MemoryReading(available_mb, pressure), LIMITS, 100.0)
    assert (found is None) if why is None else (found is not None and why in found)


@pytest.mark.parametrize(
    ("available_mb", "pressure", "worker_mb", "step"),
    [
        (150.0, 0.0, 800.0, Step.KEEP),
        (149.0, 0.0, 10.0, Step.UNLOAD),
        (900.0, 21.0, 10.0, Step.UNLOAD),
        (900.0, None, 801.0, Step.RESTART),
        (149.0, None, 801.0, Step.UNLOAD),
        (900.0, None, None, Step.KEEP),
    ],
)
def test_loaded_model_goes_before_the_kernel_acts(
    available_mb: float, pressure: float | None, worker_mb: float | None, step: Step
) -> None:
    assert judge_loaded(MemoryReading(available_mb, pressure), LIMITS, worker_mb, 100.0)[0] is step


def test_without_a_limit_a_worker_has_twice_its_model_and_headroom() -> None:
    limits, reading = MemoryLimits(0.0, None, 100.0), MemoryReading(9_000.0, None)
    assert judge_loaded(reading, limits, 712.0, 100.0)[0] is Step.KEEP
    assert judge_loaded(reading, limits, 713.0, 100.0)[0] is Step.RESTART


def test_what_was_unloaded_for_memory_is_not_loaded_back_at_once() -> None:
    reading = MemoryReading(149.0 + 100.0, None)  # the model's own memory is free again
    assert judge_loaded(MemoryReading(149.0, None), LIMITS, 100.0, 100.0)[0] is Step.UNLOAD
    assert why_not_load(reading, LIMITS, 100.0) is not None
