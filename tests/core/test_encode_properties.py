"""Whatever goes out is well-formed, and fits."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.encode import cut_text, encode_answer
from mqrouter.core.request import Answer, Form, ReplyAddress
from mqrouter.errors import ErrorCode


@given(
    st.text(max_size=80),
    st.none() | st.integers(16, 60),
    st.sampled_from(Form),
    st.none() | st.sampled_from(ErrorCode),
    st.none() | st.text(max_size=40),
    st.none() | st.text(max_size=9),
)
def test_answer_is_valid_and_fits(
    text: str, max_bytes: int | None, form: Form, error: ErrorCode | None, client_id: str | None, model: str | None
) -> None:
    reply = ReplyAddress("t", b"c", client_id, form, max_bytes)
    answer = Answer(text=text, error=error, error_message=text, model=model)
    message = encode_answer(answer, reply, "r1", None)
    decoded = message.payload.decode("utf-8")
    if form is Form.JSON:
        value = json.loads(decoded)
        assert value["id"] == ("r1" if client_id is None else client_id)
        decoded = value.get("answer", "")
    if error is None and max_bytes is not None:
        assert len(decoded.encode()) <= max_bytes
    for _, value in message.user_properties:
        value.encode("utf-8")


@given(st.text(max_size=200), st.integers(16, 120))
def test_cut_text_is_a_beginning_of_the_text(text: str, max_bytes: int) -> None:
    cut, is_cut = cut_text(text, max_bytes)
    assert text.startswith(cut)
    assert is_cut == (cut != text)
    assert len(cut.encode()) <= max_bytes
