"""The life of a request, as states and the moves between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    RECEIVED = "received"  # on disk, not yet decided
    PENDING = "pending"  # decided, waiting for a tier
    LEASED = "leased"  # a tier is working on it
    DROPPED = "dropped"  # an operator took it out of the queue: it ends as cancelled unless it is brought back in time
    ANSWERED = "answered"  # the terminal answer is in the outbox
    DELIVERED = "delivered"  # the broker acknowledged the answer, and somebody was subscribed
    UNDELIVERED = "undelivered"  # nobody took the answer before it expired
    EXPIRED = "expired"  # outlived its time to live without an answer
    DEAD = "dead"  # could not be accepted, or killed the daemon too often
    CANCELLED = "cancelled"  # an operator ended it


ACTIVE = frozenset({State.RECEIVED, State.PENDING, State.LEASED})
"""States in the queue."""

OPEN = ACTIVE | {State.DROPPED}
"""States in which no terminal answer exists yet; a provisional one may."""

TERMINAL = frozenset({State.DELIVERED, State.UNDELIVERED, State.EXPIRED, State.DEAD, State.CANCELLED})

MOVES: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset(
        {State.PENDING, State.DROPPED, State.ANSWERED, State.EXPIRED, State.DEAD, State.CANCELLED}
    ),
    # Back to received at a start without any of its tiers.
    State.PENDING: frozenset(
        {State.RECEIVED, State.LEASED, State.DROPPED, State.ANSWERED, State.EXPIRED, State.DEAD, State.CANCELLED}
    ),
    # Brought back to where it was; answered where a provisional answer stands as it expires.
    State.DROPPED: frozenset({State.RECEIVED, State.PENDING, State.ANSWERED, State.EXPIRED, State.CANCELLED}),
    State.LEASED: frozenset({State.PENDING, State.ANSWERED, State.EXPIRED, State.DEAD, State.CANCELLED}),
    # Back to received where the answer was lost with a damaged database.
    State.ANSWERED: frozenset({State.RECEIVED, State.DELIVERED, State.UNDELIVERED}),
    State.UNDELIVERED: frozenset({State.DELIVERED}),  # asked again, and taken this time
} | {state: frozenset() for state in TERMINAL - {State.UNDELIVERED}}


def may_move(old: State, new: State) -> bool:
    return new in MOVES[old]
