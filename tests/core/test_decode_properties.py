"""Whatever comes in is a request or a refusal."""

from __future__ import annotations

import json
from typing import Any

from fakes import LIMITS, PREFIX, START_MS, incoming
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.decode import decode, decode_question
from mqrouter.core.encode import encode_answer
from mqrouter.core.request import Answer, Refused, Request, RequestId
from mqrouter.core.topics import build_topic_map
from mqrouter.errors import ErrorCode

TOPICS = build_topic_map(PREFIX, (("farm/+/ask", 1, "farm/{device}/answer"), ("tele/#", 3, "{prefix}/x")), ("#",))
FIELDS = [
    "question",
    "messages",
    "id",
    "session",
    "context",
    "ttl_s",
    "priority",
    "max_bytes",
    "private",
    "route",
    "progress",
    "accept_provisional",
    "role",
    "content",
]

wire_text = st.text(max_size=40)  # UTF-8 from the wire never holds a surrogate
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=10)
    | st.sampled_from(["user", "system", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6).map(lambda value: json.dumps(value).encode())
payloads = st.binary(max_size=60) | objects | wire_text.map(str.encode) | st.just(b"x" * 1001)
topics = (
    st.sampled_from([f"{PREFIX}/ask/d1", f"{PREFIX}/ask/d1/7", f"{PREFIX}/ask", "farm/p/ask", "tele/a/b/c/d", "tele"])
    | wire_text
    | st.none()
)


@given(
    payloads,
    topics,
    st.none() | wire_text | st.sampled_from(["reply/me", f"{PREFIX}/ask/d1", "a/#"]),
    st.none() | st.binary(max_size=20),
    st.none() | wire_text | st.sampled_from(["application/json", "text/plain", "text/html"]),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_anything_is_a_request_or_a_refusal(
    payload: bytes,
    topic: str | None,
    response_topic: str | None,
    correlation: bytes | None,
    content_type: str | None,
    expiry_s: int | None,
) -> None:
    message = incoming(
        payload,
        topic=topic,
        response_topic=response_topic,
        correlation=correlation,
        content_type=content_type,
        expiry_s=expiry_s,
    )
    item = decode(message, TOPICS, LIMITS, RequestId("r1"), START_MS)
    assert isinstance(item, Request | Refused)
    if isinstance(item, Request):
        again = decode_question(payload, content_type, item.reply.client_id, LIMITS)
        assert again == item.question  # the later stages read the same question from the row
        assert START_MS < item.expires_at_ms <= START_MS + 1000 * LIMITS.max_ttl_s
    if item.reply is not None:
        assert TOPICS.why_not_answerable(item.reply.topic, item.device) is None
        assert item.reply.correlation == correlation
        answer = Answer(error=ErrorCode.INTERNAL, error_message=item.message if isinstance(item, Refused) else "x")
        encode_answer(answer, item.reply, item.id, None).payload.decode("utf-8")
