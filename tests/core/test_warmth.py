"""When a model is kept loaded: after how long, and in which hours."""

import pytest

from mqrouter.core.warmth import DailyHours, WarmRule, parse_hours


def minute(text: str) -> int:
    return 60 * int(text[:2]) + int(text[3:])


def test_hours_are_read_as_minutes_of_the_day() -> None:
    assert parse_hours("06:05-23:59") == DailyHours(365, 1439)


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("06:00-20:00", ["06:00", "13:37", "19:59"], ["05:59", "20:00", "00:00", "23:59"]),
        ("20:00-06:00", ["20:00", "23:59", "00:00", "05:59"], ["06:00", "13:37", "19:59"]),
        ("00:00-00:00", ["00:00", "12:00", "23:59"], []),
        ("06:00-06:00", ["05:59", "06:00", "06:01"], []),
        ("23:59-00:01", ["23:59", "00:00"], ["00:01", "23:58"]),
    ],
)
def test_hours_hold_their_start_and_not_their_end(hours: str, inside: list[str], outside: list[str]) -> None:
    found = parse_hours(hours)
    assert [text for text in [*inside, *outside] if found.covers(minute(text))] == inside


def test_model_is_called_once_it_was_unused_for_so_long() -> None:
    rule = WarmRule(240.0)
    assert [rule.is_due(unused_s, 0) for unused_s in (0.0, 239.9, 240.0, float("inf"))] == [False, False, True, True]


def test_nothing_is_due_outside_its_hours() -> None:
    rule = WarmRule(240.0, parse_hours("06:00-20:00"))
    assert [rule.is_due(1000.0, minute(text)) for text in ("05:59", "06:00", "20:00")] == [False, True, False]
