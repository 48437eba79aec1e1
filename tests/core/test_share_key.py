"""Which requests may have one answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fakes import reply_address

from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Form
from mqrouter.core.sharing import share_key

BODY = {"question": "is pH 7.9 normal?", "id": "1", "context": "trough", "max_bytes": 200}


def stored(payload: bytes, form: Form, **changes: Any) -> StoredRequest:
    request = StoredRequest(
        seq=1, id="r1", topic="t", device="d1", session=None, payload=payload, content_type=None,
        reply=reply_address(form=form), is_private=False, priority=0, turn=0, received_at_ms=0, expires_at_ms=1,
        client_gave_expiry=False, route="r", strategy=None, confidence=None, tiers=("hub",), todo=("hub",),
        attempts=0, rounds=0, lease=0, crashes=0,
    )  # fmt: skip
    return replace(request, **changes)


def key(
    body: dict[str, Any] | str, *, route: str | None = "r", is_private: bool = False, **changes: Any
) -> bytes | None:
    form = Form.TEXT if isinstance(body, str) else Form.JSON
    payload = body if isinstance(body, str) else json.dumps(body)
    return share_key(stored(payload.encode(), form, **changes), route, is_private=is_private)


@pytest.mark.parametrize("more", [{"id": "2"}, {"priority": 9}, {"ttl_s": 5}])
def test_who_asks_and_how_urgently_makes_no_difference(more: dict[str, Any]) -> None:
    assert key(BODY) == key(BODY | more) == key(dict(reversed(BODY.items())), device="d2", seq=7)


@pytest.mark.parametrize(
    "more",
    [
        {"question": "is pH 7.8 normal?"},
        {"question": "Is pH 7.9 normal?"},
        {"context": "tank"},
        {"max_bytes": 201},
        {"route": "r"},
        {"private": True},
        {"anything": "else"},
    ],
)
def test_whatever_else_differs_makes_another_question(more: dict[str, Any]) -> None:
    assert key(BODY) != key(BODY | more)


def test_conversations_are_compared_whole() -> None:
    turns = [{"role": "user", "content": "hello"}]
    before = [{"role": "assistant", "content": "hi"}]
    assert key({"messages": turns}) == key({"messages": turns}) != key({"messages": before + turns})


def test_route_and_form_belong_to_the_scope() -> None:
    assert key("is it?") == key("is it?")
    assert key("is it?") != key("is it?", route=None)
    assert key("is it?") != key({"question": "is it?"})


def test_private_question_shares_with_its_own_device_only() -> None:
    assert key("who owes me?", is_private=True) == key("who owes me?", is_private=True)
    assert key("who owes me?", is_private=True) != key("who owes me?", is_private=True, device="d2")
    assert key("who owes me?", is_private=True) != key("who owes me?")


def test_question_of_a_session_stands_for_itself() -> None:
    assert key(BODY | {"session": "s"}, session="s") is None
