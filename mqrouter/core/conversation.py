"""What was said before in a session, as far as it fits and may be seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mqrouter.core.cutting import cut_to_fit
from mqrouter.core.request import Message

LEAST_ANSWER_CHARS = 200
"""Less than this of a cut answer is not worth its turn."""


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """Bounds of what a session adds to a question; without turns or characters it adds nothing."""

    max_turns: int
    max_chars: int
    max_gap_ms: int
    """A session is over once nothing was asked for so long."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of a session; `answer` is None where it has none, or an error."""

    question: str
    answer: str | None
    is_private: bool
    """Asked in private, or answered with something private in view."""
    received_at_ms: int

    @property
    def chars(self) -> int:
        return len(self.question) + len(self.answer or "")


@dataclass(frozen=True, slots=True)
class History:
    """Turns as a tier is sent them, the oldest first."""

    messages: tuple[Message, ...] = ()
    holds_private: bool = False


def recall(
    newest_first: Iterable[Turn], asked_at_ms: int, limits: HistoryLimits, *, room_chars: int, is_trusted: bool
) -> History:
    """Returns the latest turns that fit: whole ones, the oldest left out first.

    A latest answer that alone is too long is cut. Private turns are left out at a tier that is not trusted, and so
    are those that were answered with a private one in view.
    """
    left = min(limits.max_chars, room_chars)
    chosen: list[Turn] = []
    later_ms = asked_at_ms
    for turn in newest_first:
        if later_ms - turn.received_at_ms > limits.max_gap_ms or len(chosen) >= limits.max_turns:
            break
        later_ms = turn.received_at_ms
        if turn.answer is None or (turn.is_private and not is_trusted):
            continue
        fitting = turn if turn.chars <= left else None if chosen else _shortened(turn, left)
        if fitting is None:
            break
        chosen.append(fitting)
        left -= fitting.chars
    messages = tuple(message for turn in reversed(chosen) for message in _messages(turn))
    return History(messages, any(turn.is_private for turn in chosen))


def _shortened(turn: Turn, max_chars: int) -> Turn | None:
    room = max_chars - len(turn.question)
    if turn.answer is None or room < LEAST_ANSWER_CHARS:
        return None
    return Turn(
        turn.question, cut_to_fit(turn.answer, lambda part: len(part) <= room)[0], turn.is_private, turn.received_at_ms
    )


def _messages(turn: Turn) -> tuple[Message, Message]:
    return Message("user", turn.question), Message("assistant", turn.answer or "")
