"""What comes in, what it means once decoded, and what goes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from mqrouter.errors import ErrorCode

RequestId = NewType("RequestId", str)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One PUBLISH as the broker delivered it: copied, not parsed."""

    epoch: int
    mid: int
    qos: int
    is_dup: bool
    is_retained: bool
    topic: str | None
    """None where the topic is not UTF-8."""
    payload: bytes
    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    cut_from_bytes: int | None = None
    """Length of a payload that was too long to be kept whole."""
    traceparent: str | None = None
    """As it came, with the message: see `traces`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a device published, as an export keeps it."""

    topic: str
    payload: bytes
    content_type: str | None = None
    reply_topic: str | None = None
    correlation: bytes | None = None
    traceparent: str | None = None


class Form(StrEnum):
    """The answer mirrors the form of the request."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    topic: str
    correlation: bytes | None
    client_id: str | None
    """The requester's own `id`, echoed in JSON answers."""
    form: Form
    max_bytes: int | None = None
    """Of the payload."""
    traceparent: str | None = None
    """The sender's own, valid; it goes with the question to every tier, and with the answer."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as chat models take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the payload says. `text` is what gets classified: the last thing the user said."""

    text: str
    messages: tuple[Message, ...]
    form: Form
    client_id: str | None = None
    session: str | None = None
    context: str | None = None
    ttl_s: float | None = None
    priority: int = 0
    max_bytes: int | None = None
    is_private: bool = False
    route: str | None = None
    strategy: str | None = None
    has_own_messages: bool = False
    """The sender gave the conversation: nothing is added to it."""
    wants_progress: bool = False
    accepts_provisional: bool = False
    traceparent: str | None = None

    @property
    def chars(self) -> int:
        """Length in characters of everything a tier would be sent."""
        return sum(len(message.content) for message in self.messages) + len(self.context or "")


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted question, ready to be written."""

    id: RequestId
    incoming: Incoming
    question: Question
    device: str
    reply: ReplyAddress
    dedupe_key: bytes | None
    payload_hash: bytes
    received_at_ms: int
    expires_at_ms: int
    client_gave_expiry: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that cannot be accepted; `reply` is None where no address can be derived."""

    id: RequestId
    incoming: Incoming
    code: ErrorCode
    message: str
    device: str
    reply: ReplyAddress | None
    payload_hash: bytes
    received_at_ms: int
    dedupe_key: bytes | None = None
    """Of a valid request that a limit stands against: it may be a duplicate of one accepted earlier."""


def refusal(item: Request | Refused, code: ErrorCode, message: str) -> Refused:
    """Returns a request as refused for a reason found later; its key stays with it."""
    return Refused(
        item.id,
        item.incoming,
        code,
        message,
        item.device,
        item.reply,
        item.payload_hash,
        item.received_at_ms,
        dedupe_key=item.dedupe_key,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one request, as a rule the terminal one: text, or an error."""

    text: str | None = None
    error: ErrorCode | None = None
    error_message: str = ""
    route: str | None = None
    tier: str | None = None
    model: str | None = None
    confidence: float | None = None
    is_truncated: bool = False
    latency_ms: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    is_provisional: bool = False
    """Not the terminal answer: a better one follows."""
    is_refined: bool | None = None
    """Whether it is better than the provisional one before it; None where there was none."""
    saw_private: bool = False
    """Given with private turns of the session in view."""
    is_cached: bool = False
    """No tier was asked for it: another request had just been given it."""
    judged: str | None = None
    """What was made of a local answer, as JSON: for the history, not for the requester."""

    @property
    def status(self) -> str:
        return "ok" if self.error is None else "error"


@dataclass(frozen=True, slots=True)
class OutMessage:
    """One PUBLISH of an answer. `user_properties` reach MQTT 5 clients only."""

    topic: str
    payload: bytes
    correlation: bytes | None
    content_type: str
    user_properties: tuple[tuple[str, str], ...]
    expires_at_ms: int | None = None
    """Passed on as Message Expiry: what remains of the requester's own limit."""


JsonObject = dict[str, Any]
