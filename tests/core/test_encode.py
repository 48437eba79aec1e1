"""What an answer looks like on the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import reply_address

from mqrouter.core.encode import cut_text, encode_answer
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


def test_answer_is_cut_to_max_bytes_and_says_so() -> None:
    text = "First sentence here. Second one goes on and on."
    message = encode_answer(Answer(text=text), reply_address(form=Form.JSON, max_bytes=30), "r1", None)
    assert body(message.payload)["answer"] == "First sentence here."
    assert body(message.payload)["truncated"] is True


@pytest.mark.parametrize(
    ("text", "max_bytes", "expected"),
    [
        ("short", None, ("short", False)),
        ("exactly16bytes..", 16, ("exactly16bytes..", False)),
        ("äääääääääää", 16, ("ääääääää", True)),
        ("äääääääääää", 17, ("ääääääää", True)),
        ("No. This is one long sentence", 24, ("No. This is one long sen", True)),
        ("One two three! Four five", 20, ("One two three!", True)),
        ("One two three?\nFour five", 20, ("One two three?\n", True)),
        ("\N{GRINNING FACE}" * 5, 18, ("\N{GRINNING FACE}" * 4, True)),
    ],
)
def test_text_is_cut_between_characters_and_at_a_near_sentence_end(
    text: str, max_bytes: int | None, expected: tuple[str, bool]
) -> None:
    assert cut_text(text, max_bytes) == expected


@pytest.mark.parametrize("char", ["\n", "\0", "\x1b", "\ufffe", "\uffff", "\U0001fffe"])
def test_user_property_holds_nothing_a_broker_would_close_the_connection_over(char: str) -> None:
    message = encode_answer(Answer(text="a", model=f"qwen{char}2.5"), reply_address(), "r", None)
    assert dict(message.user_properties)["mq-model"] == "qwen2.5"
