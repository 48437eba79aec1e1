"""Server-sent events, however the network slices them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.edge.upstream.sse import MAX_LINE_BYTES, SseParser

STREAM = (
    b': a comment\r\n\r\nevent: message\ndata: {"a": 1}\n\ndata:two\ndata: lines\n\nid: 7\nretry: 5\n\n'
    b"data: [DONE]\r\n\r\ndata: never finished"
)
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def test_whole_stream_at_once() -> None:
    assert SseParser().feed(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_slices_make_no_difference(cuts: list[int]) -> None:
    parser, places = SseParser(), sorted([0, *cuts, len(STREAM)])
    found = [event for a, b in pairwise(places) for event in parser.feed(STREAM[a:b])]
    assert found == EVENTS


def test_one_byte_at_a_time() -> None:
    parser = SseParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


def test_line_without_an_end_is_an_error() -> None:
    parser = SseParser()
    parser.feed(b"data: ")
    with pytest.raises(ValueError, match="never ends"):
        parser.feed(b"x" * (MAX_LINE_BYTES + 1))
