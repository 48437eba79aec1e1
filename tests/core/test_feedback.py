"""What a verdict says, who may give it, and what verdicts teach."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from fakes import PREFIX, TOPICS, incoming
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.feedback import Feedback, Judged, Source, Verdict, decode_feedback, device_cap, examples_of
from mqrouter.core.request import RequestId
from mqrouter.errors import RequestError

ROUTES = ("cattle", "code")


def decoded(payload: bytes | str, topic: str = f"{PREFIX}/feedback/d1/7") -> Feedback:
    return decode_feedback(incoming(payload, topic=topic), TOPICS, ROUTES, 8)


@pytest.mark.parametrize(("text", "verdict"), [("good", "good"), (" Bad\n", "bad"), ("wrong_route", "wrong_route")])
def test_plain_word_is_a_verdict_on_the_topics_request(text: str, verdict: str) -> None:
    assert decoded(text) == Feedback("7", Verdict(verdict), Source.MQTT, "d1")


def test_json_names_request_route_and_note() -> None:
    value = {"id": 12, "verdict": "wrong_route", "route": "code", "note": "x" * 900}
    found = decoded(json.dumps(value), f"{PREFIX}/feedback/d1")
    assert (found.request_id, found.device, found.right_route) == ("12", "d1", "code")
    assert found.note == "x" * 500


@pytest.mark.parametrize(
    ("payload", "topic", "message"),
    [
        ("great", "feedback/d1/7", "verdict must be one of good, bad, wrong_route"),
        ("good", "feedback/d1", "no request is named"),
        ("good", "feedback/", "names no device"),
        (b"\xff", "feedback/d1/7", "not UTF-8"),
        ("{", "feedback/d1/7", "not valid JSON"),
        ('{"verdict": "good", "route": "code"}', "feedback/d1/7", "goes with the verdict wrong_route"),
        ('{"verdict": "wrong_route", "route": "moon"}', "feedback/d1/7", "there is no route 'moon'"),
        (b"{" + b" " * 5000, "feedback/d1/7", "at most 4096 bytes"),
    ],
)
def test_what_is_no_verdict_is_refused(payload: bytes | str, topic: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decoded(payload, f"{PREFIX}/{topic}")


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_bytes_are_a_verdict_or_a_refusal(payload: bytes, rest: str) -> None:
    try:
        found = decoded(payload, f"{PREFIX}/feedback/{rest}")
    except RequestError:
        return
    assert found.device == rest.split("/")[0]


def judged(
    number: int,
    verdict: str = "good",
    *,
    device: str = "d1",
    source: Source = Source.MQTT,
    route: str | None = "cattle",
    right: str | None = None,
    text: str | None = None,
    is_by_text: bool = True,
) -> Judged:
    words = f"question {number}" if text is None else text
    return Judged(RequestId(f"r{number}"), device, source, Verdict(verdict), route, is_by_text, right, words)


def test_labels_come_from_what_was_confirmed_or_named() -> None:
    verdicts = [
        judged(1),
        judged(2, "wrong_route", right="code"),
        judged(3, "bad"),
        judged(4, "wrong_route"),
        judged(5, route=None),
        judged(6, route="removed"),
        judged(7, is_by_text=False),
        judged(8, "wrong_route", right="code", is_by_text=False),
    ]
    assert examples_of(verdicts, ROUTES).pairs == (
        ("question 1", "cattle"),
        ("question 2", "code"),
        ("question 8", "code"),
    )


def test_operators_verdict_holds_against_the_devices() -> None:
    verdicts = [judged(1), judged(1, "wrong_route", right="code", source=Source.OPERATOR)]
    for order in (verdicts, verdicts[::-1]):
        assert examples_of(order, ROUTES).pairs == (("question 1", "code"),)


def test_operators_verdict_on_a_question_holds_against_newer_ones_of_devices() -> None:
    verdicts = [
        judged(2, text="My cow?"),
        judged(1, "wrong_route", right="code", source=Source.OPERATOR, text="my COW"),
    ]
    assert examples_of(verdicts, ROUTES).pairs == (("my COW", "code"),)


def test_flood_on_the_questions_of_others_takes_nothing_from_them() -> None:
    of_others = [judged(100 + n, device=f"o{n}", text=f"stock {n}") for n in range(40)]
    flood = [judged(n, "wrong_route", right="code", device="flood", text=f"stock {n}") for n in range(40)]
    found = examples_of(flood + of_others, ROUTES)
    assert len(found.pairs) == found.labelled == 40
    assert sum(route == "code" for _, route in found.pairs) <= 4


def test_newest_verdict_on_one_question_holds() -> None:
    verdicts = [judged(2, "wrong_route", right="code", text="My cow?"), judged(1, text="my  COW")]
    assert examples_of(verdicts, ROUTES).pairs == (("My cow?", "code"),)


def test_configured_question_in_other_letters_is_not_learnt_again() -> None:
    assert examples_of([judged(1, text="HOW are the cows")], ROUTES, ["How are the cows?"]).pairs == ()


def test_one_device_that_floods_gives_three_examples() -> None:
    verdicts = [judged(n) for n in range(100)] + [judged(100 + n, device=f"o{n}") for n in range(5)]
    found = examples_of(verdicts, ROUTES)
    assert (len(found.pairs), found.labelled) == (8, 105)
    assert found.pairs[:3] == tuple((f"question {n}", "cattle") for n in range(3))


def test_operators_verdicts_all_count() -> None:
    assert len(examples_of([judged(n, source=Source.OPERATOR) for n in range(40)], ROUTES).pairs) == 40


@given(st.dictionaries(st.integers(0, 30), st.integers(1, 200), max_size=30), st.integers(0, 200))
def test_no_device_has_more_than_a_tenth_of_what_is_kept_or_three(counts: dict[int, int], others: int) -> None:
    cap = device_cap(Counter({str(device): count for device, count in counts.items()}), others)
    kept = others + sum(min(count, cap) for count in counts.values())
    assert max((min(count, cap) for count in counts.values()), default=0) <= max(3, kept / 10)
