"""How long a request would wait, and which tier it had better ask instead."""

from __future__ import annotations

import pytest

from mqrouter.core.load import TierLoad, TooBusy, expected_wait_s, put_busy_last

UP = {"edge", "hub"}
FREE = TierLoad(0.0, 1.0, None)


@pytest.mark.parametrize(
    ("ahead", "concurrency", "latency_ms", "wait_s"),
    [
        (0, 1, 2000.0, 0.0),
        (1, 1, 2000.0, 2.0),
        (5, 1, 2000.0, 10.0),
        (3, 4, 2000.0, 0.0),
        (7, 4, 2000.0, 2.0),
        (9, 1, None, 0),
    ],
)
def test_wait_grows_with_the_queue_and_shrinks_with_the_hands(
    ahead: int, concurrency: int, latency_ms: float | None, wait_s: float
) -> None:
    assert expected_wait_s(ahead, concurrency, latency_ms) == wait_s


def edge(wait_s: float, answer_s: float = 2.0) -> dict[str, TierLoad]:
    return {"edge": TierLoad(wait_s, answer_s, 30.0), "hub": FREE}


@pytest.mark.parametrize(
    ("wait_s", "left_s", "limit_s"),
    [(30.0, 600.0, None), (31.0, 600.0, 30.0), (8.0, 10.0, None), (9.0, 10.0, 8.0), (0.0, 1.0, 0.0)],
)
def test_busy_tier_goes_last_where_it_would_be_too_late(wait_s: float, left_s: float, limit_s: float | None) -> None:
    tiers, busy = put_busy_last(("edge", "hub"), edge(wait_s), UP, left_s)
    if limit_s is None:
        assert (tiers, busy) == (("edge", "hub"), ())
    else:
        assert (tiers, busy) == (("hub", "edge"), (TooBusy("edge", wait_s, limit_s),))


def test_busy_tier_stays_where_no_other_is_up() -> None:
    assert put_busy_last(("edge", "hub"), edge(90.0), {"edge"}, 600.0) == (("edge", "hub"), ())
    assert put_busy_last(("edge",), edge(90.0), UP, 600.0) == (("edge",), ())


def test_tier_without_a_limit_is_never_too_busy() -> None:
    loads = {"hub": TierLoad(900.0, 1.0, None)}
    assert put_busy_last(("hub", "edge"), loads, UP, 10.0) == (("hub", "edge"), ())
