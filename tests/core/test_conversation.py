"""What a tier is told of a session."""

from __future__ import annotations

import pytest

from mqrouter.core.conversation import History, HistoryLimits, Turn, recall

NOW = 1_000_000
LIMITS = HistoryLimits(max_turns=3, max_chars=1000, max_gap_ms=60_000)


def turn(name: str, *, ago_ms: int = 0, answer: str | None = "yes.", is_private: bool = False) -> Turn:
    return Turn(f"{name}?", answer, is_private, NOW - ago_ms)


def asked(history: History) -> list[str]:
    return [message.content for message in history.messages if message.role == "user"]


def recalled(*newest_first: Turn, limits: HistoryLimits = LIMITS, room: int = 1000, is_trusted: bool = True) -> History:
    return recall(newest_first, NOW, limits, room_chars=room, is_trusted=is_trusted)


def test_turns_come_in_order_question_then_answer() -> None:
    history = recalled(turn("b", answer="B."), turn("a", answer="A."))
    told = [(message.role, message.content) for message in history.messages]
    assert told == [("user", "a?"), ("assistant", "A."), ("user", "b?"), ("assistant", "B.")]


def test_oldest_turns_go_first_by_number() -> None:
    assert asked(recalled(*map(turn, "edcba"))) == ["c?", "d?", "e?"]


@pytest.mark.parametrize(("max_chars", "room"), [(13, 1000), (1000, 13)])
def test_oldest_turns_go_first_by_characters(max_chars: int, room: int) -> None:
    limits = HistoryLimits(9, max_chars, 60_000)
    assert asked(recalled(*map(turn, "cba"), limits=limits, room=room)) == ["b?", "c?"]


def test_turn_that_does_not_fit_hides_those_before_it() -> None:
    limits = HistoryLimits(9, 100, 60_000)
    assert asked(recalled(turn("c"), turn("b", answer="x" * 200), turn("a"), limits=limits)) == ["c?"]


def test_latest_answer_that_alone_is_too_long_is_cut_at_a_sentence() -> None:
    history = recalled(turn("a", answer="One sentence of it. " * 200))
    assert asked(history) == ["a?"]
    assert 500 < len(history.messages[1].content) <= 998
    assert history.messages[1].content.endswith("it.")


@pytest.mark.parametrize("room", [-50, 0, 20])
def test_without_room_nothing_is_told(room: int) -> None:
    assert recalled(turn("a", answer="x" * 300), room=room) == History()


def test_session_ends_with_a_long_silence() -> None:
    """By the time between two questions, not by the time since: an outage does not end it."""
    a, b, c = turn("a", ago_ms=130_000), turn("b", ago_ms=60_000), turn("c", ago_ms=10_000)
    assert asked(recalled(c, b, a)) == ["b?", "c?"]
    assert asked(recalled(turn("a", ago_ms=60_001))) == []


def test_question_without_an_answer_is_left_out_and_keeps_the_session_alive() -> None:
    b, a = turn("b", ago_ms=50_000, answer=None), turn("a", ago_ms=100_000)
    assert asked(recalled(b, a)) == ["a?"]


def test_private_turns_go_to_trusted_tiers_only() -> None:
    turns = turn("c"), turn("b", is_private=True), turn("a")
    trusted, other = recalled(*turns), recalled(*turns, is_trusted=False)
    assert (asked(trusted), trusted.holds_private) == (["a?", "b?", "c?"], True)
    assert (asked(other), other.holds_private) == (["a?", "c?"], False)
