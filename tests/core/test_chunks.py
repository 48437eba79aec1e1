"""What a device hears of an answer under way."""

from __future__ import annotations

import json

from fakes import reply_address
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.answer_check import mended
from mqrouter.core.chunks import MAX_CHUNK_BYTES, Chunks
from mqrouter.core.request import Form, OutMessage


def chunks(max_bytes: int | None = None) -> Chunks:
    reply = reply_address(form=Form.JSON, client_id="q", correlation=b"c", max_bytes=max_bytes)
    return Chunks("p/progress/d", reply, "r1", 3)


def texts(messages: list[OutMessage]) -> list[str]:
    return [json.loads(message.payload)["text"] for message in messages]


def test_message_names_its_request_its_attempt_and_its_number() -> None:
    under_way = chunks()
    under_way.add("Yes")
    (first,) = under_way.take()
    under_way.add(", of course.")
    (second,) = under_way.take()
    assert json.loads(first.payload) == {"id": "q", "attempt": 3, "seq": 0, "text": "Yes"}
    assert json.loads(second.payload) == {"id": "q", "attempt": 3, "seq": 1, "text": ", of course."}
    assert (first.topic, first.correlation, first.content_type) == ("p/progress/d", b"c", "application/json")


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=9) | st.just(" \n"), max_size=12), st.data())
def test_chunks_joined_are_the_answer(deltas: list[str], data: st.DataObject) -> None:
    under_way = chunks()
    found: list[str] = []
    for delta in [*deltas, "end"]:
        under_way.add(delta)
        if data.draw(st.booleans()):
            found += texts(under_way.take())
    found += texts(under_way.take())
    assert "".join(found) == mended("".join([*deltas, "end"])).strip()
    assert all(found)


@given(st.text(min_size=500, max_size=3000), st.none() | st.integers(131, 2000))
def test_no_message_is_too_long_and_none_is_missing(text: str, max_bytes: int | None) -> None:
    under_way = chunks(max_bytes)
    under_way.add(text)
    messages = under_way.take()
    assert all(len(message.payload) <= (max_bytes or MAX_CHUNK_BYTES) for message in messages)
    assert [json.loads(message.payload)["seq"] for message in messages] == list(range(len(messages)))
    assert text.strip().startswith("".join(texts(messages)))


def test_nothing_is_said_beyond_what_the_answer_will_keep() -> None:
    under_way = chunks(max_bytes=200)
    said = ""
    for _ in range(100):
        under_way.add("ten chars.")
        said += "".join(texts(under_way.take()))
    assert 200 <= len(said) <= 220
