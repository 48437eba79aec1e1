"""A bounded past: the oldest samples go, what was missing stays missing."""

from __future__ import annotations

from mqrouter.core.trend import Trend


def test_oldest_samples_are_forgotten_in_order() -> None:
    trend = Trend(("depth", "heat"), kept=3)
    assert (trend.at_ms, trend.series("depth")) == ([], [])
    for number in range(5):
        trend.add(number, {"depth": float(number), "heat": None if number == 3 else 50.0})
        assert trend.at_ms[-1] == number
    assert trend.at_ms == [2, 3, 4]
    assert trend.series("depth") == [2.0, 3.0, 4.0]
    assert trend.series("heat") == [50.0, None, 50.0]


def test_highest_is_of_the_samples_since() -> None:
    trend = Trend(("depth", "heat"), kept=4)
    for number, depth in enumerate((9.0, 3.0, 7.0, None, 5.0)):
        trend.add(number, {"depth": depth})
    assert trend.highest_since(1) == {"depth": 7.0, "heat": None}
    assert trend.highest_since(2) == {"depth": 5.0, "heat": None}
    assert trend.highest_since(9) == {"depth": None, "heat": None}
