"""Answers out: text or JSON, in the form of the question; no I/O."""

from __future__ import annotations

import json

from mqrouter.core.request import Answer, Form, JsonObject, OutMessage, ReplyAddress


def encode_answer(answer: Answer, reply: ReplyAddress, request_id: str, expires_at_ms: int | None) -> OutMessage:
    """Returns the one message that carries this answer, cut to the requester's `max_bytes`."""
    is_json = reply.form is Form.JSON
    body = _json_body if is_json else _text_body
    return OutMessage(
        topic=reply.topic,
        payload=body(answer, reply, request_id),
        correlation=reply.correlation,
        content_type="application/json" if is_json else "text/plain",
        user_properties=_user_properties(answer, request_id),
        expires_at_ms=expires_at_ms,
    )


def _text_body(answer: Answer, reply: ReplyAddress, _request_id: str) -> bytes:
    if answer.error is not None:
        return f"error {answer.error}: {answer.error_message}".encode()
    return cut_text(answer.text or "", reply.max_bytes)[0].encode()


def _json_body(answer: Answer, reply: ReplyAddress, request_id: str) -> bytes:
    body: JsonObject = {"id": reply.client_id if reply.client_id is not None else request_id, "status": answer.status}
    if answer.error is not None:
        body["error"] = {
            "code": str(answer.error),
            "message": answer.error_message,
            "retryable": answer.error.is_retryable,
        }
    else:
        text, is_cut = cut_text(answer.text or "", reply.max_bytes)
        body |= {
            "answer": text,
            "cached": answer.is_cached,
            "provisional": False,
            "truncated": is_cut or answer.is_truncated,
        }
    body |= {"route": answer.route, "tier": answer.tier, "model": answer.model, "confidence": answer.confidence}
    body |= {"latency_ms": answer.latency_ms, "usage": answer.usage}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _user_properties(answer: Answer, request_id: str) -> tuple[tuple[str, str], ...]:
    pairs = {
        "mq-id": request_id,
        "mq-status": str(answer.error or answer.status),
        "mq-route": answer.route,
        "mq-tier": answer.tier,
        "mq-model": answer.model,
        "mq-latency-ms": str(answer.latency_ms),
    }
    return tuple((name, _property_text(value)) for name, value in pairs.items() if value is not None)


def _property_text(value: str) -> str:
    """A broker may close the connection over a control character or a non-character (MQTT 5, 1.5.4)."""
    return "".join(char for char in value if char.isprintable() and ord(char) & 0xFFFE != 0xFFFE)


def cut_text(text: str, max_bytes: int | None) -> tuple[str, bool]:
    """Returns the text cut to `max_bytes` of UTF-8, at the end of a sentence where one is near, and whether it was."""
    encoded = text.encode("utf-8")
    if max_bytes is None or len(encoded) <= max_bytes:
        return text, False
    cut = encoded[:max_bytes].decode("utf-8", "ignore")
    end = max(cut.rfind(mark) for mark in (". ", "! ", "? ", "\n"))
    return (cut[: end + 1] if end >= len(cut) // 2 else cut), True
