"""Delays double up to their limit, with full jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.backoff import Backoff

BACKOFF = Backoff(min_s=2.0, max_s=300.0)


def test_ceiling_doubles_up_to_its_limit() -> None:
    assert [BACKOFF.ceiling_s(failures) for failures in (1, 2, 3, 8, 9, 100_000)] == [2, 4, 8, 256, 300, 300]


@given(st.integers(-3, 10**6), st.floats(0, 1, exclude_max=True))
def test_delay_lies_between_zero_and_the_ceiling(failures: int, chance: float) -> None:
    assert 0.0 <= BACKOFF.delay_s(failures, chance) <= BACKOFF.ceiling_s(failures) <= 300.0


def test_jitter_reaches_down_to_zero() -> None:
    assert BACKOFF.delay_s(5, 0.0) == 0.0
    assert BACKOFF.delay_s(5, 0.5) == 16.0
