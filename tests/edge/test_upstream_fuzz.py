"""Whatever a server says: an answer, or one of the errors a caller knows how to handle. Never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from exchanges import read
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.events import Delta, Done, TierEvent
from mqrouter.edge.upstream import OllamaOptions, OllamaWire, UpstreamOptions
from mqrouter.edge.upstream.ollama import Chat
from mqrouter.edge.upstream.openai import Completion
from mqrouter.edge.upstream.wire import AnswerReader
from mqrouter.errors import PermanentError, TransientError

OPTIONS = UpstreamOptions("hub", "http://hub", "m", None, 64, 0.2, 1, 1.0, 1.0, 1.0)
READERS: dict[str, Callable[[], AnswerReader]] = {"openai": lambda: Completion("m"), "ollama": lambda: Chat("m")}
STREAMS = {
    "openai": read("litellm")[0].body,
    "ollama": b'{"model":"m","message":{"role":"assistant","content":"Yes."},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":3}\n',
}
KEYS = ("choices", "delta", "message", "content", "finish_reason", "usage", "model", "error", "done", "done_reason")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["stop", "length"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def read_all(reader: AnswerReader, pieces: list[bytes]) -> list[TierEvent]:
    """Returns what a body comes to. What it is refused with has to be an error of ours."""
    events: list[TierEvent] = []
    try:
        for piece in pieces:
            events += reader.feed(piece).events
        return events + reader.close()
    except (TransientError, PermanentError):
        return events


def assert_fit(events: list[TierEvent]) -> None:
    for event in events:
        match event:
            case Delta(text):
                assert text
            case Done():
                assert event.finish_reason in ("stop", "length")
                event.model.encode()
                assert 0 <= event.prompt_tokens <= 1 << 31
                assert 0 <= event.completion_tokens <= 1 << 31


@pytest.mark.parametrize("kind", READERS)
@given(pieces=st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes(kind: str, pieces: list[bytes]) -> None:
    assert_fit(read_all(READERS[kind](), pieces))


@pytest.mark.parametrize("kind", READERS)
@given(values=st.lists(VALUES, max_size=4), is_framed=st.booleans())
def test_any_json(kind: str, values: list[Any], is_framed: bool) -> None:
    frame = "data: {}\n\n" if is_framed else "{}\n"
    data = "".join(frame.format(json.dumps(value)) for value in values).encode(errors="surrogatepass")
    assert_fit(read_all(READERS[kind](), [data]))


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_good_stream_with_bytes_taken_out_and_put_in(kind: str, data: st.DataObject) -> None:
    stream = STREAMS[kind]
    start = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(start, len(stream)))
    cut_at = data.draw(st.integers(0, len(stream)))
    broken = stream[:start] + data.draw(st.binary(max_size=8)) + stream[end:]
    assert_fit(read_all(READERS[kind](), [broken[:cut_at], broken[cut_at:]]))


@given(value=VALUES, status=st.integers(200, 599))
def test_any_reply_to_a_probe(value: Any, status: int) -> None:
    wire = OllamaWire(OPTIONS, OllamaOptions())
    for found in (value, {"models": value}, {"models": [value]}, {"models": [{"name": value}]}):
        why = wire.why_not_up(status, json.dumps(found).encode(errors="surrogatepass"))
        assert why is None or why
