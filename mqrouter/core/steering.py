"""What operators ask of the queue: which requests they mean, and what is to become of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from mqrouter.core.states import State

MAX_ORDERED = 500
"""Requests that one order changes at once, for others wait for the same disk; it says where to go on."""


class Sort(StrEnum):
    """All but the first two list what waits, and nothing else."""

    NEWEST = "newest"
    OLDEST = "oldest"
    PRIORITY = "priority"  # in the order of service
    EXPIRY = "expiry"  # what expires first
    ATTEMPTS = "attempts"  # what was tried most often, of what was tried in vain


@dataclass(frozen=True, slots=True)
class Selection:
    """Requests for which all of this is true; without anything, every request.

    `tier`: works on it, answered it, or may still be asked. `error` is looked for in how it ended and in its failures,
    `text` in the question, upper or lower case.
    """

    states: tuple[str, ...] = ()
    route: str | None = None
    tier: str | None = None
    device: str | None = None
    priority: int | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    error: str | None = None
    text: str | None = None

    @property
    def reads_texts(self) -> bool:
        """True where the text of every request has to be read."""
        return self.error is not None or self.text is not None

    @property
    def is_everything(self) -> bool:
        return self == EVERYTHING

    def __str__(self) -> str:
        """For the record of actions: never the text of a question."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [
            f"{name}={'…' if name == 'text' else ','.join(value) if isinstance(value, tuple) else value}"
            for name, value in given.items()
            if value not in (None, ())
        ]
        return " ".join(parts) or "all"


EVERYTHING = Selection()


class Verb(StrEnum):
    """What can be done to requests."""

    RETRY = "retry"  # due now, with all its tiers and attempts before it
    CANCEL = "cancel"  # ends; its sender gets the answer `cancelled`
    MOVE = "move"  # waits for one tier and no other
    PRIORITY = "priority"
    TTL = "ttl"  # expires so long after now
    DROP = "drop"  # leaves the queue, and ends as cancelled unless it is brought back in time
    UNDO = "undo"  # is back where it was before it was dropped


WAITING = frozenset({State.RECEIVED, State.PENDING})
APPLIES: Mapping[Verb, frozenset[State]] = {
    Verb.RETRY: frozenset({State.PENDING}),
    Verb.CANCEL: WAITING | {State.LEASED, State.DROPPED},
    Verb.MOVE: frozenset({State.PENDING}),
    Verb.PRIORITY: WAITING,
    Verb.TTL: WAITING | {State.LEASED},
    Verb.DROP: WAITING,
    Verb.UNDO: frozenset({State.DROPPED}),
}
"""The states in which each verb changes something."""


def meant_by(verb: Verb) -> frozenset[State]:
    """Returns the states that are meant where none is named: what was dropped is there to be brought back."""
    return APPLIES[verb] if verb is Verb.UNDO else APPLIES[verb] - {State.DROPPED}


@dataclass(frozen=True, slots=True)
class Order:
    """A verb with what it needs: `tier` for move, `priority`, `ttl_ms`, `undo_ms` for drop.

    `message` is told to who asked, by cancel.
    """

    verb: Verb
    tier: str | None = None
    is_trusted: bool = False
    """Whether `tier` may see private requests; others are left where they are."""
    priority: int = 0
    ttl_ms: int = 0
    undo_ms: int = 86_400_000
    message: str = "an operator cancelled the request"

    def __str__(self) -> str:
        what = {
            Verb.MOVE: f" to {self.tier}",
            Verb.PRIORITY: f" {self.priority}",
            Verb.TTL: f" {self.ttl_ms // 1000} s",
        }
        return f"{self.verb}{what.get(self.verb, '')}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an order found of one request, and whether it changed that."""

    id: str
    found: State
    is_changed: bool
    why_not: str | None = None
