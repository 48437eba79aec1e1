"""Requests in: text or JSON, and where the answer goes; no I/O.

The payload on disk stays as the device sent it; `decode_question` is the only reading of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from mqrouter.core.encode import least_max_bytes
from mqrouter.core.json_fields import boolean, encodable, identifier, integer, non_empty, number, parse_object, string
from mqrouter.core.request import (
    Form,
    Incoming,
    JsonObject,
    Message,
    Question,
    Refused,
    ReplyAddress,
    Request,
    RequestId,
)
from mqrouter.core.topics import TopicMap, TopicRule
from mqrouter.core.traces import PROPERTY, carried
from mqrouter.errors import ErrorCode, RequestError

ROLES = frozenset({"system", "user", "assistant"})
MAX_ID_CHARS = 128
MAX_PRIORITY = 9
MAX_KEYS = 64  # each is compared with the names of the mark of privacy: 10 us a key

BOM = b"\xef\xbb\xbf"  # Windows programs put it before UTF-8; it is no part of the question


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may measure; names and units as in the settings."""

    max_payload_bytes: int
    max_json_depth: int
    default_ttl_s: float
    max_ttl_s: float
    strategies: frozenset[str] = frozenset()
    """Names that a request may ask to be decided by."""


def decode(
    incoming: Incoming, topics: TopicMap, limits: Limits, request_id: RequestId, now_ms: int
) -> Request | Refused:
    """Returns the request, or the refusal with its code and, where one can be derived, its reply address."""
    payload_hash = hashlib.sha256(incoming.payload).digest()
    rule = topics.rule_for(incoming.topic) if incoming.topic is not None else None
    device = rule.device_of(incoming.topic) if rule and incoming.topic else ""
    reply = _reply_address(incoming, rule, topics, device)
    try:
        question = _checked_question(incoming, topics, limits, device)
    except RequestError as error:
        reply = reply and replace(reply, client_id=_apparent_id(incoming, limits) or reply.client_id)
        return Refused(request_id, incoming, error.code, error.message, device, reply, payload_hash, now_ms)
    assert reply is not None  # a topic or response topic that gives no address was refused just now
    reply = replace(
        reply,
        client_id=question.client_id,
        form=question.form,
        max_bytes=question.max_bytes,
        traceparent=reply.traceparent or question.traceparent,
    )
    ttls_s = [float(ttl_s) for ttl_s in (incoming.expiry_s, question.ttl_s) if ttl_s is not None]
    ttl_s = min([*(ttls_s or [limits.default_ttl_s]), limits.max_ttl_s])
    return Request(
        id=request_id,
        incoming=incoming,
        question=question,
        device=device,
        reply=reply,
        dedupe_key=dedupe_key(reply, device),
        payload_hash=payload_hash,
        received_at_ms=now_ms,
        expires_at_ms=now_ms + int(1000 * ttl_s),
        client_gave_expiry=incoming.expiry_s is not None,
    )


def dedupe_key(reply: ReplyAddress, device: str) -> bytes | None:
    """Returns SHA-256 of (reply topic, correlation or id, sender), or None where the requester names neither."""
    if reply.correlation:  # an empty one names nothing
        name = b"c" + reply.correlation
    elif reply.client_id is not None:
        name = b"i" + reply.client_id.encode()
    else:
        return None
    digest = hashlib.sha256()
    for part in (reply.topic.encode(), name, device.encode()):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def decode_question(payload: bytes, content_type: str | None, topic_id: str | None, limits: Limits) -> Question:
    """Returns what the payload asks. Raises RequestError with the code the sender gets."""
    if len(payload) > limits.max_payload_bytes:
        raise _too_large(len(payload), limits)
    form = form_of(payload, content_type)
    try:
        text = payload.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(ErrorCode.NOT_UTF8, f"byte {error.start} is not UTF-8") from error
    if form is Form.TEXT:
        return Question(non_empty(text, "the question"), (Message("user", text),), form, client_id=topic_id)
    return _from_json(parse_object(text, limits.max_json_depth), topic_id, limits)


def _too_large(size: int, limits: Limits) -> RequestError:
    return RequestError(ErrorCode.TOO_LARGE, f"{size} bytes; this gateway takes {limits.max_payload_bytes}")


def form_of(payload: bytes, content_type: str | None) -> Form:
    """Returns the form a payload claims: by its content type, else by its first character.

    Raises RequestError for a content type that is neither text nor JSON.
    """
    if content_type:
        name = content_type.partition(";")[0].strip().lower()
        if name == "application/json" or name.endswith("+json"):
            return Form.JSON
        if name == "text/plain":
            return Form.TEXT
        raise RequestError(
            ErrorCode.UNSUPPORTED_TYPE, f"content type {name[:64]!r}: use text/plain or application/json"
        )
    return Form.JSON if payload.removeprefix(BOM).lstrip()[:1] == b"{" else Form.TEXT


def _checked_question(incoming: Incoming, topics: TopicMap, limits: Limits, device: str) -> Question:
    if incoming.topic is None:
        raise RequestError(ErrorCode.NOT_UTF8, "the topic is not UTF-8")
    rule = topics.rule_for(incoming.topic)
    if rule is None or not device:
        raise RequestError(ErrorCode.BAD_REQUEST, "the topic names no device")
    if incoming.response_topic is not None:
        why = topics.why_not_answerable(incoming.response_topic, device)
    else:
        why = topics.why_not_own(rule.answer_topic(incoming.topic))
    if why is not None:
        raise RequestError(ErrorCode.BAD_REPLY_TOPIC, why)
    if incoming.expiry_s == 0:
        raise RequestError(ErrorCode.EXPIRED, "the message expired on its way here")
    if incoming.cut_from_bytes is not None:
        raise _too_large(incoming.cut_from_bytes, limits)
    return decode_question(incoming.payload, incoming.content_type, rule.id_of(incoming.topic), limits)


def _reply_address(incoming: Incoming, rule: TopicRule | None, topics: TopicMap, device: str) -> ReplyAddress | None:
    """Returns where even an error answer may go: the checked response topic, else the rule's answer topic."""
    form = _apparent_form(incoming)
    asked = incoming.response_topic
    if asked is not None and topics.why_not_answerable(asked, device) is None:
        return ReplyAddress(asked, incoming.correlation, None, form, traceparent=carried(incoming.traceparent))
    if rule is None or incoming.topic is None or not rule.device_of(incoming.topic):
        return None
    own = rule.answer_topic(incoming.topic)
    if topics.why_not_own(own) is not None:
        return None
    named = rule.id_of(incoming.topic)
    return ReplyAddress(own, incoming.correlation, named, form, traceparent=carried(incoming.traceparent))


def _apparent_form(incoming: Incoming) -> Form:
    """Returns the form of an error answer: a request that cannot be read still looks like text or JSON."""
    try:
        return form_of(incoming.payload, incoming.content_type)
    except RequestError:
        return Form.TEXT


def _apparent_id(incoming: Incoming, limits: Limits) -> str | None:
    """Returns the id of a JSON request that is wrong elsewhere, so that its error finds its question."""
    is_too_large = incoming.cut_from_bytes is not None or len(incoming.payload) > limits.max_payload_bytes
    if is_too_large or _apparent_form(incoming) is not Form.JSON:
        return None
    try:
        text = incoming.payload.removeprefix(BOM).decode("utf-8")
        return identifier(parse_object(text, limits.max_json_depth), "id", MAX_ID_CHARS)
    except (RequestError, UnicodeDecodeError):
        return None


def _from_json(value: JsonObject, topic_id: str | None, limits: Limits) -> Question:
    if len(value) > MAX_KEYS:
        raise RequestError(ErrorCode.BAD_REQUEST, f"{len(value)} keys; a request has at most {MAX_KEYS}")
    for name in value:
        if name != "private" and get_close_matches(name.casefold(), ("private", "is_private"), cutoff=0.8):
            # Other unknown keys are the sender's own business; this one it would be wrong to overlook.
            raise RequestError(ErrorCode.BAD_REQUEST, f'unknown key {name[:32]!r}; did you mean "private"?')
    messages = _messages(value)
    context = string(value, "context")
    client_id = identifier(value, "id", MAX_ID_CHARS) or topic_id
    return Question(
        text=next(m.content for m in reversed(messages) if m.role == "user"),
        messages=messages,
        form=Form.JSON,
        client_id=client_id,
        session=string(value, "session", MAX_ID_CHARS),
        context=context or None,
        ttl_s=number(value, "ttl_s", least=0.001),
        priority=integer(value, "priority", 0, MAX_PRIORITY) or 0,
        max_bytes=integer(value, "max_bytes", least_max_bytes(client_id), None),
        is_private=boolean(value, "private"),
        route=string(value, "route", MAX_ID_CHARS),
        strategy=_strategy(value, limits.strategies),
        has_own_messages="messages" in value,
        wants_progress=boolean(value, "progress"),
        accepts_provisional=boolean(value, "accept_provisional"),
        traceparent=carried(value.get(PROPERTY)),
    )


def _strategy(value: JsonObject, known: frozenset[str]) -> str | None:
    name = string(value, "strategy", MAX_ID_CHARS)
    if name is not None and name not in known:
        raise RequestError(ErrorCode.BAD_REQUEST, f"there is no strategy {name!r}; known: {', '.join(sorted(known))}")
    return name


def _messages(value: JsonObject) -> tuple[Message, ...]:
    if "messages" in value:
        if "question" in value:
            raise RequestError(ErrorCode.BAD_REQUEST, "give question or messages, not both")
        return _message_list(value["messages"])
    if "question" not in value:
        raise RequestError(ErrorCode.BAD_REQUEST, 'no question: send {"question": "…"} or {"messages": […]}')
    question = value["question"]
    if not isinstance(question, str):
        raise RequestError(ErrorCode.BAD_REQUEST, "question must be a string")
    return (Message("user", non_empty(question, "question")),)


def _message_list(items: Any) -> tuple[Message, ...]:
    if not isinstance(items, list) or not items:
        raise RequestError(ErrorCode.BAD_REQUEST, "messages must be a list of {role, content}")
    messages = tuple(_message(item) for item in items)
    if messages[-1].role != "user":
        raise RequestError(ErrorCode.BAD_REQUEST, "the last of messages must have the role user")
    non_empty(messages[-1].content, "the last message")
    return messages


def _message(item: Any) -> Message:
    role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
    if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
        raise RequestError(ErrorCode.BAD_REQUEST, "a message is {role, content}, role one of system, user, assistant")
    return Message(role, encodable(content, "a message"))
