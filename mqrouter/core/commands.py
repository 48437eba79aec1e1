"""What an operator may order over MQTT, and the topics for it: below PREFIX/cmd, apart from those of any device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mqrouter.core.decode import BOM, MAX_ID_CHARS
from mqrouter.core.json_fields import identifier, parse_object, string
from mqrouter.core.request import Incoming, JsonObject
from mqrouter.errors import ErrorCode, RequestError

MAX_BYTES = 1024
MAX_DEPTH = 4


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Target:
    """One of both, or with neither all tiers."""

    tier: str | None = None
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    action: Action
    target: Target


@dataclass(frozen=True, slots=True)
class CommandTopics:
    """PREFIX/cmd/all, /cmd/tier/NAME and /cmd/route/NAME take orders; PREFIX/cmd/result says what became of them.

    All below PREFIX/cmd is listened to, so that who mistakes the topic is told; the results come back with it.
    """

    prefix: str

    @property
    def filters(self) -> tuple[str, ...]:
        return (f"{self.prefix}/cmd/#",)

    @property
    def result(self) -> str:
        return f"{self.prefix}/cmd/result"

    def of(self, tier: str | None) -> str:
        return f"{self.prefix}/cmd/all" if tier is None else f"{self.prefix}/cmd/tier/{tier}"

    def has(self, topic: str | None) -> bool:
        return topic is not None and f"{topic}/".startswith(f"{self.prefix}/cmd/")

    def target(self, topic: str) -> Target:
        """Returns what a topic names. Raises RequestError for a topic that takes no orders."""
        rest = topic.removeprefix(f"{self.prefix}/cmd/")
        if rest == "all":
            return Target()
        kind, _, name = rest.partition("/")
        if kind not in ("tier", "route") or not name or "/" in name:
            raise RequestError(ErrorCode.BAD_REQUEST, "orders go to cmd/all, cmd/tier/NAME or cmd/route/NAME")
        return Target(tier=name) if kind == "tier" else Target(route=name)


def read_payload(incoming: Incoming) -> JsonObject:
    """Returns the order as an object: {action, id}. Raises RequestError for what cannot be understood."""
    if incoming.cut_from_bytes is not None or len(incoming.payload) > MAX_BYTES:
        raise RequestError(ErrorCode.TOO_LARGE, f"an order has at most {MAX_BYTES} bytes")
    try:
        text = incoming.payload.removeprefix(BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RequestError(ErrorCode.NOT_UTF8, f"byte {error.start} is not UTF-8") from error
    return parse_object(text, MAX_DEPTH) if text.startswith("{") else {"action": text.lower()}


def id_of(value: JsonObject) -> str | None:
    """Returns what the sender calls its order. Raises RequestError."""
    return identifier(value, "id", MAX_ID_CHARS)


def action_of(value: JsonObject) -> Action:
    """Raises RequestError where none is named."""
    action = string(value, "action")
    if action not in set(Action):
        raise RequestError(ErrorCode.BAD_REQUEST, f"the action must be one of {', '.join(Action)}")
    return Action(action)
