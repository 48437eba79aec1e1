"""The recent latency of a tier."""

from __future__ import annotations

from mqrouter.core.latency import KEPT, RecentLatency


def after(*latencies_ms: float) -> float | None:
    recent = RecentLatency()
    for latency_ms in latencies_ms:
        recent.add(latency_ms)
    return recent.p50_ms


def test_nothing_is_known_before_the_first_answer() -> None:
    assert after() is None


def test_one_slow_answer_does_not_move_it() -> None:
    assert after(*[100.0] * 6, 9_000.0) == 100.0


def test_slow_answers_in_a_row_do() -> None:
    assert after(*[100.0] * KEPT, *[9_000.0] * 8) == 9_000.0
    assert after(*[9_000.0] * KEPT, *[100.0] * 8) == 100.0


def test_zero_is_a_value() -> None:
    assert after(0.0) == 0.0
