"""Fit in the queue, and turns that are fair between devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.admission import Ended, Fit, Held, Holdings, Moves, QueueLimits, WhenFull, fit_of
from mqrouter.core.states import State

LIMITS = QueueLimits(max_requests=10, max_bytes=1000, when_full=WhenFull.REJECT, share_per_device=0.5)


@pytest.mark.parametrize(
    ("size", "held", "by_device", "room"),
    [
        (10, Held(0, 0), Held(0, 0), Fit.ENOUGH),
        (10, Held(9, 900), Held(4, 400), Fit.ENOUGH),
        (10, Held(10, 900), Held(4, 400), Fit.QUEUE_FULL),
        (101, Held(9, 900), Held(0, 0), Fit.QUEUE_FULL),
        (100, Held(9, 900), Held(0, 0), Fit.ENOUGH),
        (10, Held(5, 50), Held(5, 50), Fit.DEVICE_FULL),
        (10, Held(10, 50), Held(5, 50), Fit.DEVICE_FULL),
        (10, Held(5, 495), Held(1, 495), Fit.DEVICE_FULL),
    ],
)
def test_room_ends_exactly_at_the_limits(size: int, held: Held, by_device: Held, room: Fit) -> None:
    assert fit_of(size, held, by_device, LIMITS) is room


def test_smallest_queue_still_takes_one_of_a_device() -> None:
    limits = replace(LIMITS, max_requests=1)
    assert fit_of(10, Held(), Held(), limits) is Fit.ENOUGH
    assert fit_of(10, Held(1, 10), Held(), limits) is Fit.QUEUE_FULL


def enter(holdings: Holdings, device: str, priority: int = 0) -> int:
    moves = Moves(holdings)
    turn = moves.next_turn(device, priority, lambda: -1)
    moves.enter(device, priority, 1, turn)
    holdings.apply(moves)
    return turn


def serve(holdings: Holdings, device: str, turn: int, priority: int = 0) -> None:
    moves = Moves(holdings)
    moves.serve(priority, turn)
    moves.leave(State.RECEIVED, device, 1, Ended.of(None))
    holdings.apply(moves)


def test_quiet_device_is_served_next_after_a_flood() -> None:
    holdings = Holdings()
    flood = [enter(holdings, "loud") for _ in range(100)]
    assert flood == list(range(100))
    serve(holdings, "loud", flood[0])
    assert enter(holdings, "quiet") == 0
    for turn in flood[1:50]:
        serve(holdings, "loud", turn)
    assert enter(holdings, "late") == flood[49]


def test_priorities_have_turns_of_their_own() -> None:
    holdings = Holdings()
    assert [enter(holdings, "a") for _ in range(3)] == [0, 1, 2]
    assert enter(holdings, "a", priority=9) == 0


def test_turns_of_rows_from_an_earlier_life_are_left_to_the_database() -> None:
    holdings = Holdings(devices={"a": Held(3, 30)}, total=Held(3, 30), unread={"a"})
    assert Moves(holdings).next_turn("a", 0, lambda: 41) == 42
    assert Moves(holdings).next_turn("b", 0, lambda: 41) == 0


def test_transaction_that_began_anew_leaves_nothing_behind() -> None:
    moves = Moves(Holdings())
    moves.enter("a", 0, 7, 0)
    moves.serve(0, 3)
    moves.clear()
    assert (moves.held(), moves.held_by("a"), moves.next_turn("a", 0, lambda: 41)) == (Held(), Held(), 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=60))
def test_holdings_are_the_sum_of_what_entered_and_left(steps: list[tuple[str, int, bool]]) -> None:
    holdings = Holdings()
    inside: list[tuple[int, int, str]] = []
    for device, priority, is_leaving in steps:
        if is_leaving and inside:
            inside.sort()
            _, turn, name = first = inside[0]
            inside.remove(first)
            serve(holdings, name, turn, -first[0])
        else:
            inside.append((-priority, enter(holdings, device, priority), device))
        assert holdings.total == Held(len(inside), len(inside))
        assert {name: held.requests for name, held in holdings.devices.items()} == {
            name: sum(entry[2] == name for entry in inside) for name in {entry[2] for entry in inside}
        }
        assert {key[0] for key in holdings.next_turns} <= holdings.devices.keys()
