"""Whatever goes out is well-formed, and fits."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.encode import encode_answer, least_max_bytes
from mqrouter.core.request import Answer, Form, ReplyAddress
from mqrouter.errors import ErrorCode


@given(
    st.text(max_size=80),
    st.none() | st.integers(0, 60),
    st.sampled_from(Form),
    st.none() | st.sampled_from(ErrorCode),
    st.none() | st.text(max_size=40),
    st.none() | st.text(max_size=9),
    st.booleans(),
    st.none() | st.booleans(),
)
def test_answer_is_valid_and_fits(
    text: str,
    above_least: int | None,
    form: Form,
    error: ErrorCode | None,
    client_id: str | None,
    model: str | None,
    is_provisional: bool,
    is_refined: bool | None,
) -> None:
    max_bytes = None if above_least is None else least_max_bytes(client_id) + above_least
    reply = ReplyAddress("t", b"c", client_id, form, max_bytes)
    answer = Answer(
        text=3 * text,
        error=error,
        error_message=3 * text,
        model=model,
        is_provisional=is_provisional,
        is_refined=is_refined,
    )
    message = encode_answer(answer, reply, "r1", None)
    decoded = message.payload.decode("utf-8")
    if form is Form.JSON:
        value = json.loads(decoded)
        assert value["id"] == ("r1" if client_id is None else client_id)
    if max_bytes is not None and (form is Form.JSON or error is None):
        assert len(message.payload) <= max_bytes
    for _, value in message.user_properties:
        value.encode("utf-8")
