"""The moves between states form a life with one end."""

from __future__ import annotations

from mqrouter.core.states import ACTIVE, MOVES, TERMINAL, State, may_move


def test_every_state_has_its_moves_and_only_terminal_ones_have_none() -> None:
    assert set(MOVES) == set(State)
    assert {state for state, moves in MOVES.items() if not moves} == TERMINAL


def test_terminal_states_are_reached_from_every_active_one() -> None:
    for state in ACTIVE:
        assert {State.EXPIRED, State.DEAD, State.CANCELLED, State.ANSWERED} <= MOVES[state]


def test_answered_request_is_never_answered_again() -> None:
    assert not any(may_move(State.ANSWERED, state) for state in ACTIVE)
    assert not may_move(State.RECEIVED, State.LEASED)  # nothing is forwarded undecided
