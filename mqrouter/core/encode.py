"""Answers out: text or JSON, in the form of the question; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mqrouter.core.cutting import cut_text, cut_to_fit
from mqrouter.core.request import Answer, Form, JsonObject, OutMessage, ReplyAddress
from mqrouter.core.traces import PROPERTY

LEAST_MAX_BYTES = 128
"""Room for what the shortest JSON answer holds around its text, less the id, and for a few words."""
REQUEST_ID_CHARS = 16


def least_max_bytes(client_id: str | None) -> int:
    """Returns the least `max_bytes` that every answer to a request under this id can keep to."""
    return LEAST_MAX_BYTES + (REQUEST_ID_CHARS if client_id is None else len(_dumped(client_id)) - 2)


def encode_answer(answer: Answer, reply: ReplyAddress, request_id: str, expires_at_ms: int | None) -> OutMessage:
    """Returns the one message that carries this answer; its payload keeps to the requester's `max_bytes`."""
    is_json = reply.form is Form.JSON
    body = _json_body if is_json else _text_body
    return OutMessage(
        topic=reply.topic,
        payload=body(answer, reply, request_id),
        correlation=reply.correlation,
        content_type="application/json" if is_json else "text/plain",
        user_properties=_user_properties(answer, reply, request_id),
        expires_at_ms=expires_at_ms,
    )


def answered_text(payload: bytes) -> str | None:
    """Returns the text that a JSON payload of `encode_answer` carries; None for an error."""
    text: str | None = json.loads(payload).get("answer")
    return text


def decode_answer(payload: bytes, form: Form, properties: Mapping[str, str]) -> Answer:
    """Returns the answer that a payload of `encode_answer` carries, no error, with its text as sent.

    `properties` are the user properties that went with it: a short payload leaves out what they tell.
    """
    body: JsonObject = {"answer": payload.decode(), "truncated": False}
    if form is Form.JSON:
        body = json.loads(payload)
    return Answer(
        text=body["answer"],
        route=properties.get("mq-route"),
        tier=properties.get("mq-tier"),
        model=properties.get("mq-model"),
        confidence=body.get("confidence"),
        is_truncated=body["truncated"],
        usage=body.get("usage", {}),
    )


def _text_body(answer: Answer, reply: ReplyAddress, _request_id: str) -> bytes:
    if answer.error is not None:
        return f"error {answer.error}: {answer.error_message}".encode()
    return cut_text(answer.text or "", reply.max_bytes)[0].encode()


def _json_body(answer: Answer, reply: ReplyAddress, request_id: str) -> bytes:
    """Returns the whole answer; where that is too long, it without its details, and its text cut if need be."""
    body: JsonObject = {"id": reply.client_id if reply.client_id is not None else request_id, "status": answer.status}
    payload = _dumped(body | _said(answer, answer.text or "", is_cut=False) | _details(answer, reply))
    if reply.max_bytes is None or len(payload) <= reply.max_bytes:
        return payload
    max_bytes = reply.max_bytes
    whole = answer.error_message if answer.error is not None else answer.text or ""

    def short(text: str) -> bytes:
        return _dumped(body | _said(answer, text, is_cut=text != whole, is_short=True))

    return short(cut_to_fit(whole, lambda text: len(short(text)) <= max_bytes)[0])


def _said(answer: Answer, text: str, *, is_cut: bool, is_short: bool = False) -> JsonObject:
    if answer.error is not None:
        message = text if is_short else answer.error_message
        return {"error": {"code": str(answer.error), "message": message, "retryable": answer.error.is_retryable}}
    said: JsonObject = {"answer": text}
    if not is_short:
        said |= {"cached": answer.is_cached}
    if not is_short or answer.is_provisional:
        said |= {"provisional": answer.is_provisional}
    if answer.is_refined is not None:
        said |= {"refined": answer.is_refined}
    return said | {"truncated": is_cut or answer.is_truncated}


def _details(answer: Answer, reply: ReplyAddress) -> JsonObject:
    details = {"route": answer.route, "tier": answer.tier, "model": answer.model, "confidence": answer.confidence}
    traced = {} if reply.traceparent is None else {PROPERTY: reply.traceparent}
    return details | {"latency_ms": answer.latency_ms, "usage": answer.usage} | traced


def _dumped(value: JsonObject | str) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _user_properties(answer: Answer, reply: ReplyAddress, request_id: str) -> tuple[tuple[str, str], ...]:
    pairs = {
        "mq-id": request_id,
        "mq-status": "provisional" if answer.is_provisional else str(answer.error or answer.status),
        "mq-route": answer.route,
        "mq-tier": answer.tier,
        "mq-model": answer.model,
        "mq-latency-ms": str(answer.latency_ms),
        PROPERTY: reply.traceparent,
    }
    return tuple((name, _property_text(value)) for name, value in pairs.items() if value is not None)


def _property_text(value: str) -> str:
    """A broker may close the connection over a control character or a non-character (MQTT 5, 1.5.4)."""
    return "".join(char for char in value if char.isprintable() and ord(char) & 0xFFFE != 0xFFFE)
