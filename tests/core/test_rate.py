"""A device may ask so often and no more; another device does not pay for it."""

from __future__ import annotations

from mqrouter.core.rate import DeviceRates


def test_burst_then_refusal_then_refill() -> None:
    rates = DeviceRates(per_minute=60)
    assert [rates.is_allowed("a", 0.0) for _ in range(61)] == [True] * 60 + [False]
    assert not rates.is_allowed("a", 0.9)
    assert rates.is_allowed("a", 1.1)
    assert not rates.is_allowed("a", 1.2)


def test_refused_questions_cost_nothing() -> None:
    rates = DeviceRates(per_minute=1)
    assert rates.is_allowed("a", 0.0)
    assert not any(rates.is_allowed("a", 0.5 * step) for step in range(120))
    assert rates.is_allowed("a", 60.5)


def test_devices_do_not_share_a_bucket() -> None:
    rates = DeviceRates(per_minute=1)
    assert rates.is_allowed("a", 0.0)
    assert rates.is_allowed("b", 0.0)


def test_bucket_never_holds_more_than_a_minute() -> None:
    rates = DeviceRates(per_minute=2)
    assert rates.is_allowed("a", 0.0)
    assert [rates.is_allowed("a", 1e6) for _ in range(3)] == [True, True, False]


def test_number_of_devices_is_bounded_and_the_silent_are_forgotten() -> None:
    rates = DeviceRates(per_minute=1, max_devices=2)
    for device in "ab":
        assert rates.is_allowed(device, 0.0)
    assert not rates.is_allowed("a", 0.1)  # heard from again: `b` is the silent one now
    assert rates.is_allowed("c", 0.2)
    assert not rates.is_allowed("a", 0.3)
    assert rates.is_allowed("b", 0.4)


def test_to_look_at_a_bucket_takes_nothing_from_it() -> None:
    rates = DeviceRates(per_minute=1)
    assert not any(rates.is_spent("a", 0.0) for _ in range(3))
    assert rates.is_allowed("a", 0.0)
    assert rates.is_spent("a", 30.0)
    assert not rates.is_spent("a", 60.0)
