"""What follows a failed attempt."""

from __future__ import annotations

from typing import Any

import pytest

from mqrouter.core.backoff import Backoff
from mqrouter.core.retry import Failure, GiveUp, GoOn, Waiting, after_failure

BOTH = Waiting(("hub", "edge"), ("hub", "edge"))
LAST = Waiting(("hub", "edge"), ("edge",))


def after(waiting: Waiting, tier: str, failure: Failure, **more: Any) -> GoOn | GiveUp:
    given: dict[str, Any] = {"attempts": 0, "max_attempts": 8, "rounds": 0, "chance": 0.5} | more
    return after_failure(waiting, tier, failure, backoff=Backoff(2.0, 300.0), **given)


def test_unreachable_tier_costs_nothing() -> None:
    assert after(BOTH, "hub", Failure.UNREACHABLE, attempts=7) == GoOn(BOTH, is_counted=False)


def test_next_tier_is_tried_before_waiting() -> None:
    assert after(BOTH, "hub", Failure.TRANSIENT) == GoOn(LAST, is_counted=True)


def test_round_that_failed_waits_and_begins_again() -> None:
    assert after(LAST, "edge", Failure.TRANSIENT) == GoOn(BOTH, is_counted=True, wait_s=1.0)


def test_wait_grows_with_the_rounds() -> None:
    step = after(LAST, "edge", Failure.TRANSIENT, rounds=3)
    assert isinstance(step, GoOn) and step.wait_s == 8.0


def test_retry_after_is_a_lower_bound() -> None:
    alone = Waiting(("edge",), ("edge",))
    assert after(alone, "edge", Failure.TRANSIENT, retry_after_s=30.0) == GoOn(alone, True, 30.0)
    assert after(alone, "edge", Failure.TRANSIENT, retry_after_s=0.0) == GoOn(alone, True, 1.0)


def test_tier_that_may_not_see_the_request_is_struck_out_and_costs_nothing() -> None:
    left = Waiting(("edge",), ("edge",))
    assert after(BOTH, "hub", Failure.WITHHELD, attempts=7) == GoOn(left, is_counted=False)
    assert after(left, "edge", Failure.WITHHELD) == GiveUp()


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.UNFIT])
def test_final_failure_strikes_the_tier_out(failure: Failure) -> None:
    assert after(BOTH, "hub", failure) == GoOn(Waiting(("edge",), ("edge",)), is_counted=True)
    assert after(Waiting(("edge",), ("edge",)), "edge", failure) == GiveUp()
    assert after(LAST, "edge", failure) == GoOn(Waiting(("hub",), ("hub",)), is_counted=True, wait_s=1.0)


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.REFUSED, Failure.UNFIT])
def test_last_attempt_gives_up(failure: Failure) -> None:
    assert after(BOTH, "hub", failure, attempts=7) == GiveUp()
    assert after(BOTH, "hub", failure, attempts=6) != GiveUp()


def test_one_tiers_retry_after_does_not_park_a_request_that_another_could_take() -> None:
    assert after(LAST, "edge", Failure.TRANSIENT, retry_after_s=86_400.0) == GoOn(BOTH, True, 1.0)
