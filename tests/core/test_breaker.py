"""A breaker opens when it must, and one request decides whether it closes."""

from __future__ import annotations

import pytest

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker, BreakerState


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(max_failures=3, probes=Backoff(1.0, 60.0))


def test_opens_at_the_last_allowed_failure(breaker: Breaker) -> None:
    for _ in range(2):
        breaker.fail("down", 100.0, 0.0)
    assert breaker.is_available(100.0)
    breaker.fail("down", 100.0, 0.0)
    assert breaker.state is BreakerState.OPEN
    assert (breaker.reason, breaker.is_available(100.0)) == ("down", False)


def test_success_forgets_failures(breaker: Breaker) -> None:
    for _ in range(10):
        breaker.fail("down", 100.0, 0.0)
        breaker.fail("down", 100.0, 0.0)
        breaker.succeed()
    assert breaker.state is BreakerState.CLOSED


def test_trip_opens_at_once(breaker: Breaker) -> None:
    breaker.trip("nobody there", 100.0, 0.0)
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(("chance", "expected_s"), [(0.0, 0.5), (0.999999, 1.0)])
def test_probe_waits_at_least_half_of_the_ceiling(breaker: Breaker, chance: float, expected_s: float) -> None:
    breaker.trip("down", 100.0, chance)
    assert breaker.probe_at_s - 100.0 == pytest.approx(expected_s, abs=1e-3)
    assert not breaker.is_probe_due(breaker.probe_at_s - 0.001)
    assert breaker.is_probe_due(breaker.probe_at_s)


def test_failed_probes_double_the_pause_up_to_its_limit(breaker: Breaker) -> None:
    breaker.trip("down", 0.0, 0.0)
    pauses = []
    for _ in range(8):
        breaker.probe_failed(0.0, 0.0)
        pauses.append(breaker.probe_at_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_hurried_probe_is_due_and_never_later_than_it_was(breaker: Breaker) -> None:
    breaker.trip("down", 100.0, 0.9)
    assert not breaker.is_probe_due(100.1)
    breaker.hurry(100.1)
    assert breaker.is_probe_due(100.1)
    breaker.hurry(200.0)
    assert breaker.is_probe_due(100.1)


def test_requests_that_fail_together_cost_one_pause(breaker: Breaker) -> None:
    for _ in range(8):  # eight were in flight when the link went down
        breaker.trip("down", 100.0, 0.0)
    assert breaker.probe_at_s == 100.5
    breaker.fail("down", 100.0, 0.0)
    assert breaker.probe_at_s == 100.5


def test_half_open_closes_on_success_and_opens_on_one_failure(breaker: Breaker) -> None:
    breaker.trip("down", 0.0, 0.0)
    breaker.probe_succeeded()
    assert (breaker.state, breaker.is_available(0.0)) == (BreakerState.HALF_OPEN, True)
    breaker.fail("still down", 0.0, 0.0)
    assert (breaker.state, breaker.probe_at_s) == (BreakerState.OPEN, 1.0)  # twice the first pause
    breaker.probe_succeeded()
    breaker.succeed()
    assert (breaker.state, breaker.reason) == (BreakerState.CLOSED, "")
    breaker.trip("down", 0.0, 0.0)
    assert breaker.probe_at_s == 0.5  # from the start again


def test_probe_of_a_closed_breaker_changes_nothing(breaker: Breaker) -> None:
    breaker.probe_succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.is_probe_due(1e9)


def test_hold_keeps_requests_away_and_never_shrinks(breaker: Breaker) -> None:
    breaker.hold(130.0)
    breaker.hold(110.0)
    assert not breaker.is_available(129.9)
    assert breaker.is_available(130.0)
    assert breaker.state is BreakerState.CLOSED


def test_hold_outlasts_a_success(breaker: Breaker) -> None:
    breaker.hold(130.0)
    breaker.succeed()
    assert not breaker.is_available(120.0)
