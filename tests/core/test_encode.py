"""What an answer looks like on the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import reply_address

from mqrouter.core.encode import answered_text, decode_answer, encode_answer
from mqrouter.core.request import Answer, Form
from mqrouter.errors import ErrorCode


def body(message_payload: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message_payload)
    return value


def test_text_answer_is_the_text_alone() -> None:
    message = encode_answer(Answer(text="Yes. Öl."), reply_address(correlation=b"\x00\xff"), "r1", 99)
    assert (message.payload, message.content_type) == ("Yes. Öl.".encode(), "text/plain")
    assert (message.correlation, message.expires_at_ms) == (b"\x00\xff", 99)


def test_json_answer_holds_every_documented_field() -> None:
    answer = Answer(
        text="Yes",
        route="r",
        tier="hub",
        model="m",
        confidence=0.5,
        latency_ms=12,
        usage={"prompt_tokens": 1, "completion_tokens": 2},
    )
    message = encode_answer(answer, reply_address(form=Form.JSON, client_id="q"), "r1", None)
    assert message.content_type == "application/json"
    assert body(message.payload) == {
        "id": "q",
        "status": "ok",
        "answer": "Yes",
        "route": "r",
        "tier": "hub",
        "model": "m",
        "confidence": 0.5,
        "cached": False,
        "provisional": False,
        "truncated": False,
        "latency_ms": 12,
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }


def test_json_answer_without_a_client_id_carries_our_own() -> None:
    assert body(encode_answer(Answer(text="x"), reply_address(form=Form.JSON), "r1", None).payload)["id"] == "r1"


@pytest.mark.parametrize("code", list(ErrorCode))
def test_json_error_says_whether_to_retry(code: ErrorCode) -> None:
    message = encode_answer(Answer(error=code, error_message="why"), reply_address(form=Form.JSON), "r1", None)
    value = body(message.payload)
    assert value["status"] == "error"
    assert value["error"] == {"code": str(code), "message": "why", "retryable": code.is_retryable}
    assert "answer" not in value


def test_user_properties_name_what_is_known() -> None:
    message = encode_answer(Answer(text="x", tier="hub", latency_ms=3), reply_address(), "r1", None)
    expected = (("mq-id", "r1"), ("mq-status", "ok"), ("mq-tier", "hub"), ("mq-latency-ms", "3"))
    assert message.user_properties == expected
    error = encode_answer(Answer(error=ErrorCode.NO_ROUTE), reply_address(), "r1", None)
    assert ("mq-status", "no_route") in error.user_properties


def short(answer: Answer, max_bytes: int) -> dict[str, Any]:
    """The payload's content; it is no longer than that."""
    message = encode_answer(answer, reply_address(form=Form.JSON, client_id="q", max_bytes=max_bytes), "r1", None)
    assert len(message.payload) <= max_bytes
    return body(message.payload)


def test_payload_is_cut_to_max_bytes_at_a_sentence_and_says_so() -> None:
    text = 'First sentence, and it is long enough to be kept. Second one, "quoted", goes on and on. ' * 3
    found = short(Answer(text=text, tier="hub", route="r"), 130)
    assert found == {"id": "q", "status": "ok", "answer": text[:49], "truncated": True}


def test_details_go_before_any_of_the_text() -> None:
    text = "All of this fits, as long as nothing else is said."
    answer = Answer(text=text, route="r" * 90, tier="hub", model="m")
    assert short(answer, 400)["tier"] == "hub"
    assert short(answer, 140) == {"id": "q", "status": "ok", "answer": text, "truncated": False}


def test_error_keeps_to_max_bytes_too() -> None:
    found = short(Answer(error=ErrorCode.PRIVATE_UNANSWERABLE, error_message="It cannot be. " * 50), 130)
    assert found["error"] == {
        "code": "private_unanswerable",
        "message": "It cannot be. It cannot be.",
        "retryable": False,
    }


def test_provisional_answer_and_what_became_of_it_are_told_apart() -> None:
    first = Answer(text="Maybe.", tier="edge", is_provisional=True)
    assert short(first, 400)["provisional"] is True
    assert short(Answer(text="Yes.", is_refined=True), 400) | {"provisional": False, "refined": True} == short(
        Answer(text="Yes.", is_refined=True), 400
    )
    message = encode_answer(first, reply_address(form=Form.JSON), "r1", None)
    assert dict(message.user_properties)["mq-status"] == "provisional"
    assert "refined" not in body(message.payload)


@pytest.mark.parametrize("max_bytes", [None, 150])
def test_answer_is_read_back_as_it_was_sent(max_bytes: int | None) -> None:
    answer = Answer(text="Öl. " * 30, route="r", tier="edge", model="m", confidence=0.5, usage={"prompt_tokens": 1})
    message = encode_answer(answer, reply_address(form=Form.JSON, client_id="q", max_bytes=max_bytes), "r1", None)
    found = decode_answer(message.payload, Form.JSON, dict(message.user_properties))
    assert (found.route, found.tier, found.model) == ("r", "edge", "m")
    assert found.text == answered_text(message.payload)
    assert (found == answer) is (max_bytes is None)
    assert found.is_truncated is (max_bytes is not None)


@pytest.mark.parametrize("char", ["\n", "\0", "\x1b", "\ufffe", "\uffff", "\U0001fffe"])
def test_user_property_holds_nothing_a_broker_would_close_the_connection_over(char: str) -> None:
    message = encode_answer(Answer(text="a", model=f"qwen{char}2.5"), reply_address(), "r", None)
    assert dict(message.user_properties)["mq-model"] == "qwen2.5"
