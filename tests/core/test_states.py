"""The moves between states form a life with one end."""

from __future__ import annotations

from mqrouter.core.states import ACTIVE, MOVES, TERMINAL, State, may_move


def test_every_state_has_its_moves_and_terminal_ones_lead_nowhere_but_to_a_late_delivery() -> None:
    assert set(MOVES) == set(State)
    assert {(old, new) for old in TERMINAL for new in MOVES[old]} == {(State.UNDELIVERED, State.DELIVERED)}
    assert all(MOVES[state] for state in set(State) - TERMINAL)


def test_terminal_states_are_reached_from_every_active_one() -> None:
    for state in ACTIVE:
        assert {State.EXPIRED, State.DEAD, State.CANCELLED, State.ANSWERED} <= MOVES[state]


def test_answered_request_is_only_asked_again_where_its_answer_was_lost() -> None:
    assert [state for state in ACTIVE if may_move(State.ANSWERED, state)] == [State.RECEIVED]
    assert not may_move(State.RECEIVED, State.LEASED)  # nothing is forwarded undecided
