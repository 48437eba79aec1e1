"""Rows of the database as values, as the stages pass them on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mqrouter.core.privacy import NOT_PRIVATE, PrivateBy
from mqrouter.core.request import OutMessage, ReplyAddress
from mqrouter.core.states import State

Seq = int


class Accepted(StrEnum):
    """What became of a request that came in."""

    NEW = "new"
    ABSORBED = "absorbed"  # seen before: nothing new was written, a stored answer goes out again
    REUSED = "reused"  # its correlation belongs to another question
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as the stages need it; `payload` is read again with `decode.decode_question`."""

    seq: Seq
    id: str
    topic: str
    device: str
    session: str | None
    payload: bytes
    content_type: str | None
    reply: ReplyAddress
    is_private: bool
    priority: int
    turn: int
    received_at_ms: int
    expires_at_ms: int
    client_gave_expiry: bool
    route: str | None
    strategy: str | None
    """The one that decided it."""
    confidence: float | None
    tiers: tuple[str, ...]
    todo: tuple[str, ...]
    attempts: int
    rounds: int
    lease: int
    crashes: int
    private_by: PrivateBy = NOT_PRIVATE
    """As far as is known: from its acceptance on the sender's mark, from its decision on all of it."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An answer to publish, and what its closing log line tells of the request."""

    seq: Seq
    request: Seq
    message: OutMessage
    tries: int
    request_id: str
    device: str
    route: str | None
    tier: str | None
    model: str | None
    state: State
    reason: str | None
    attempts: int
    received_at_ms: int
    is_provisional: bool = False
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class PastTurn:
    """An earlier request of a session, as it came in, and its answer as it went out: None where there is no text."""

    payload: bytes
    content_type: str | None
    topic: str
    answer: bytes | None
    is_private: bool
    """Asked in private, or answered with something private in view."""
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when an operator holds a tier or a route back, and who."""

    at_ms: int
    actor: str


def join_tiers(tiers: tuple[str, ...]) -> str:
    return ">".join(tiers)


def split_tiers(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(">")) if text else ()
