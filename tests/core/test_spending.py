"""How much a tier may still be asked: what begins, what is counted, and when there is room again."""

from __future__ import annotations

import calendar
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.spending import DAY_MS, Call, Level, Meter, TierLimits, Tokens, day_of, month_of

NOW_MS = int(datetime.datetime(2026, 2, 27, 12, tzinfo=datetime.UTC).timestamp() * 1000)
NOON_TO_MIDNIGHT_MS = DAY_MS // 2
PRICES: dict[str, Any] = {"prompt_price": 1.0, "completion_price": 2.0, "max_tokens": 100}


def meter(**limits: Any) -> Meter:
    found = Meter(TierLimits(**limits))
    found.load(NOW_MS, 0.0, 0.0, [])
    return found


def begin(meter: Meter, now_ms: int = NOW_MS, *, request: int = 1, expected: Tokens | None = None) -> Call:
    call = Call("hub", request, 1, f"r{request}", now_ms, expected or Tokens(20, 100))
    meter.begin(call)
    return call


def end(meter: Meter, call: Call, used: Tokens | None, now_ms: int = NOW_MS) -> None:
    call.used = used
    meter.end(call, now_ms)


def used(meter: Meter, name: str, now_ms: int = NOW_MS) -> float:
    return next(level.used for level in meter.levels(now_ms) if level.name == name)


def test_tier_without_limits_is_never_over() -> None:
    free = meter(**PRICES)
    for number in range(1000):
        end(free, begin(free, request=number), Tokens(1_000_000, 1_000_000))
    assert not free.is_over(NOW_MS)
    assert free.over(NOW_MS) is None


def test_requests_are_counted_within_any_minute() -> None:
    limited = meter(requests_per_minute=2)
    end(limited, begin(limited, NOW_MS), Tokens(1, 1), NOW_MS)
    assert limited.allowance(NOW_MS).requests == 1
    end(limited, begin(limited, NOW_MS + 20_000), Tokens(1, 1), NOW_MS + 20_000)
    over = limited.over(NOW_MS + 20_000)
    assert over is not None
    assert (over.reason, over.until_ms) == ("requests per minute: 2 of 2 taken", NOW_MS + 60_000)
    assert limited.is_over(NOW_MS + 59_999)
    assert limited.allowance(NOW_MS + 60_000).requests == 1
    assert limited.allowance(NOW_MS + 80_000).requests == 2


def test_tokens_hold_what_is_expected_until_the_end_says_what_was_used() -> None:
    limited = meter(tokens_per_minute=120)
    call = begin(limited)
    assert limited.is_over(NOW_MS)
    end(limited, call, Tokens(30, 10))
    assert limited.allowance(NOW_MS).tokens == 80
    end(limited, begin(limited, NOW_MS + 1000), Tokens(70, 10), NOW_MS + 1000)
    over = limited.over(NOW_MS + 1000)
    assert over is not None
    assert over.until_ms == NOW_MS + 60_000  # the first call's 40 are enough


def test_room_for_tokens_comes_with_the_call_that_makes_it() -> None:
    limited = meter(tokens_per_minute=100)
    for number, tokens in enumerate((10, 10, 200)):
        end(limited, begin(limited, NOW_MS + 1000 * number, request=number), Tokens(tokens, 0), NOW_MS + 1000 * number)
    over = limited.over(NOW_MS + 3000)
    assert over is not None
    assert over.until_ms == NOW_MS + 62_000


def test_call_that_was_never_sent_counts_nowhere() -> None:
    limited = meter(requests_per_minute=1, budget_per_day=1.0, **PRICES)
    call = begin(limited)
    assert limited.is_over(NOW_MS)
    end(limited, call, None)
    assert not limited.is_over(NOW_MS)
    assert (used(limited, "requests_per_minute"), used(limited, "budget_per_day")) == (0, 0.0)


def test_money_is_counted_by_the_prices() -> None:
    limited = meter(budget_per_day=1.0, **PRICES)
    end(limited, begin(limited), Tokens(100_000, 200_000))
    assert used(limited, "budget_per_day") == pytest.approx(0.5)
    end(limited, begin(limited), Tokens(100_000, 200_000))
    over = limited.over(NOW_MS)
    assert over is not None
    assert (over.reason, over.until_ms) == ("budget per day: 1 of 1 taken", NOW_MS + NOON_TO_MIDNIGHT_MS)


def test_day_ends_at_midnight_and_the_month_goes_on() -> None:
    limited = meter(budget_per_day=1.0, budget_per_month=1.6, **PRICES)
    end(limited, begin(limited), Tokens(1_000_000, 0))
    midnight_ms = NOW_MS + NOON_TO_MIDNIGHT_MS
    assert limited.is_over(midnight_ms - 1)
    assert not limited.is_over(midnight_ms)
    end(limited, begin(limited, midnight_ms), Tokens(600_000, 0), midnight_ms)
    over = limited.over(midnight_ms)
    assert over is not None
    assert over.reason == "budget per month: 1.6 of 1.6 taken"
    assert over.until_ms == midnight_ms + DAY_MS  # the 28th is the last of February 2026
    assert used(limited, "budget_per_month", over.until_ms) == 0.0


def test_what_is_under_way_keeps_later_calls_from_passing_the_budget() -> None:
    limited = meter(budget_per_day=0.0005, **PRICES)  # a call is expected to cost 0.00022
    expected = [Tokens(20, 100)] * 10
    assert limited.allowance(NOW_MS).takes(expected, limited.limits) == 3
    for number in range(3):
        begin(limited, request=number)
    assert limited.allowance(NOW_MS).takes(expected, limited.limits) == 0


def test_budget_of_nothing_lets_nothing_begin() -> None:
    limited = meter(budget_per_day=0.0, **PRICES)
    assert limited.is_over(NOW_MS)
    assert limited.allowance(NOW_MS).takes([Tokens(1, 1)], limited.limits) == 0


def test_allowance_lets_a_call_begin_while_there_is_room_before_it() -> None:
    limited = meter(tokens_per_minute=100, requests_per_minute=3)
    allowance = limited.allowance(NOW_MS)
    assert allowance.takes([Tokens(5000, 0)], limited.limits) == 1  # else a large question would never be asked
    assert allowance.takes([Tokens(60, 0)] * 3, limited.limits) == 2
    assert allowance.takes([Tokens(1, 0)] * 9, limited.limits) == 3


def test_meter_goes_on_from_what_was_stored() -> None:
    limited = Meter(TierLimits(requests_per_minute=3, tokens_per_minute=100, budget_per_month=2.0, **PRICES))
    limited.load(NOW_MS, 0.5, 1.5, [(NOW_MS - 59_000, 40), (NOW_MS - 1000, 20)])
    assert limited.levels(NOW_MS) == [
        Level("requests_per_minute", 2, 3, NOW_MS + 1000),
        Level("tokens_per_minute", 60, 100, NOW_MS + 1000),
        Level("budget_per_day", 0.5, None, NOW_MS + NOON_TO_MIDNIGHT_MS),
        Level("budget_per_month", 1.5, 2.0, NOW_MS + NOON_TO_MIDNIGHT_MS + DAY_MS),
    ]


def test_call_longer_than_a_minute_is_counted_in_money_only() -> None:
    limited = meter(requests_per_minute=1, tokens_per_minute=10, budget_per_day=1.0, **PRICES)
    call = begin(limited)
    end(limited, call, Tokens(100_000, 0), NOW_MS + 61_000)
    assert not limited.is_over(NOW_MS + 61_000)
    assert used(limited, "budget_per_day", NOW_MS + 61_000) == pytest.approx(0.1)


@given(st.integers(0, 60_000))
def test_month_is_that_of_the_calendar(day: int) -> None:
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    first = day - date.day + 1
    assert month_of(day) == range(first, first + calendar.monthrange(date.year, date.month)[1])
    assert day_of(day * DAY_MS + DAY_MS - 1) == day


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "void", "wait"]), st.integers(0, 90_000)), max_size=60),
    st.integers(1, 5),
)
def test_counts_are_those_of_a_plain_recount(steps: list[tuple[str, int]], limit: int) -> None:
    limited = meter(requests_per_minute=limit, tokens_per_minute=1_000_000, budget_per_day=1e9, **PRICES)
    now_ms, under_way, sent, money = NOW_MS, list[Call](), list[Call](), 0.0
    for number, (step, amount) in enumerate(steps):
        if step == "begin":
            under_way.append(begin(limited, now_ms, request=number))
            sent.append(under_way[-1])
        elif step == "wait":
            now_ms += amount
        elif under_way:
            call = under_way.pop(amount % len(under_way))
            end(limited, call, Tokens(amount, 1) if step == "end" else None, now_ms)
            if step == "void":
                sent.remove(call)
            money = money + limited.limits.cost(call.used or Tokens()) if day_of(now_ms) == day_of(NOW_MS) else 0.0
    inside = [call for call in sent if call.at_ms + 60_000 > now_ms]
    assert used(limited, "requests_per_minute", now_ms) == len(inside)
    assert used(limited, "tokens_per_minute", now_ms) == sum((call.used or call.expected).total for call in inside)
    if day_of(now_ms) == day_of(NOW_MS):
        held = sum(limited.limits.cost(call.expected) for call in under_way)
        assert used(limited, "budget_per_day", now_ms) == pytest.approx(money + held)
