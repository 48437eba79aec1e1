"""Trace context: what is one, what is passed on, and identifiers that need no memory."""

import pytest

from mqrouter.core.traces import carried, of_request, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(("text", "is_sampled"), [(GIVEN, True), (f"00-{TRACE}-{SPAN}-00", False)])
def test_valid_one_is_read_and_written_the_same(text: str, is_sampled: bool) -> None:
    context = parse(text)
    assert context is not None and context.is_sampled is is_sampled
    assert (str(context), context.trace_id, context.span_id) == (text, TRACE, SPAN)


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    assert carried(f"cc-{TRACE}-{SPAN}-03-what-is-to-come") == GIVEN


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        ["00"],
        "",
        GIVEN.upper(),
        f" {GIVEN}",
        f"{GIVEN}\n",
        f"{GIVEN}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0\N{ARABIC-INDIC DIGIT ONE}",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1_000,
    ],
    ids=repr,
)
def test_anything_else_is_none(text: object) -> None:
    assert parse(text) is None
    assert carried(text, GIVEN) == GIVEN


def test_request_of_a_traced_sender_is_part_of_its_trace_and_sampled_as_it_says() -> None:
    for flag in (0, 1):
        context, parent = of_request("r1", f"00-{TRACE}-{SPAN}-0{flag}", ratio=1 - flag)
        assert parent is not None
        assert (context.trace_id, parent.span_id, context.is_sampled) == (TRACE, SPAN, bool(flag))
        assert context.span_id != SPAN


def test_request_has_the_same_identifiers_in_every_life() -> None:
    first, parent = of_request("r1", None, 1.0)
    assert (parent, first) == (None, of_request("r1", None, 1.0)[0])
    assert first.trace_id != of_request("r2", None, 1.0)[0].trace_id
    assert parse(str(first)) == first


def test_ratio_is_the_share_of_requests_that_are_traced() -> None:
    sampled = sum(of_request(f"r{number}", None, 0.25)[0].is_sampled for number in range(4_000))
    assert 900 < sampled < 1_100
    assert not of_request("r1", None, 0.0)[0].is_sampled and of_request("r1", None, 1.0)[0].is_sampled
