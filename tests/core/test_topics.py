"""Topic matching after MQTT 5, section 4.7, and what a topic tells of its device."""

from __future__ import annotations

import pytest
from fakes import PREFIX, TOPICS
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.topics import TopicRule, build_topic_map, is_publishable, matches, why_not_a_filter

levels = st.lists(
    st.text(st.characters(exclude_characters="/+#$\0", codec="utf-8"), max_size=4), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # The examples of the standard itself.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "anything/at/all", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor/Clients", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("+/tennis/#", "sport/tennis", True),
        ("a/b", "a/b", True),
        ("a/b", "A/b", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
        ("a/$b", "a/$b", True),
        ("a/+", "a/$b", True),
    ],
)
def test_filter_matches_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@given(levels)
def test_every_topic_matches_itself_and_its_parents_hash(parts: list[str]) -> None:
    topic = "/".join(parts)
    assert matches(topic, topic)
    for length in range(1, len(parts) + 1):
        assert matches("/".join([*parts[:length], "#"]), topic)
    assert matches("/".join("+" for _ in parts), topic)


@pytest.mark.parametrize("topic", ["a", "a/b c", "/", "ä/ö", "x" * 65_535])
def test_plain_names_are_publishable(topic: str) -> None:
    assert is_publishable(topic)


@pytest.mark.parametrize(
    "topic", ["", "a/+", "a/#", "a+b", "$SYS/a", "a\0", "a\x1f", "a\x7f", "a\x9f", "\ud800", "ä" * 32_768]
)
def test_other_names_are_not(topic: str) -> None:
    assert not is_publishable(topic)


@pytest.mark.parametrize("topic_filter", ["a", "+", "#", "a/+/b", "+/#", "/", "$share/g/a"])
def test_valid_filters(topic_filter: str) -> None:
    assert why_not_a_filter(topic_filter) is None


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+", "a/b+/c", "a\0"])
def test_invalid_filters(topic_filter: str) -> None:
    assert why_not_a_filter(topic_filter) is not None


def test_own_topics_name_device_and_id() -> None:
    rule = TOPICS.rule_for(f"{PREFIX}/ask/d1/9")
    assert rule is not None
    assert rule.answer_topic(f"{PREFIX}/ask/d1") == f"{PREFIX}/answer/d1"
    assert rule.answer_topic(f"{PREFIX}/ask/d1/9") == f"{PREFIX}/answer/d1/9"
    assert rule.answer_topic(f"{PREFIX}/ask/d1/") == f"{PREFIX}/answer/d1"
    assert rule.answer_topic(f"{PREFIX}/ask/d1/9/more") == f"{PREFIX}/answer/d1/9/more"


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("tele/+/+", "tele/d/7", "7"),
        ("tele/+/#", "tele/d/7", "7"),
        ("tele/#", "tele/d/7", "7"),
        ("tele/+/question", "tele/d/question", None),
        ("tele/+", "tele/d", None),
        ("tele/+/+/ask", "tele/d/7/ask", None),
    ],
)
def test_only_a_level_the_filter_leaves_open_is_an_id(topic_filter: str, topic: str, expected: str | None) -> None:
    rule = TopicRule(topic_filter, 1, "answers/{device}")
    assert rule.device_of(topic) == "d"
    assert rule.id_of(topic) == expected
    assert rule.answer_topic(topic) == "answers/d" + (f"/{expected}" if expected else "")


def test_listener_reads_its_device_where_told() -> None:
    topics = build_topic_map("p", (("farm/+/+/ask", 2, "{prefix}/out/{device}"),), ("#",))
    rule = topics.rule_for("farm/north/probe/ask")
    assert rule is not None
    assert rule.answer_topic("farm/north/probe/ask") == "p/out/probe"
    assert topics.rule_for("farm/north/ask") is None


def test_request_topics_never_receive_answers() -> None:
    topics = build_topic_map("p", (("farm/+/ask", 1, "x"),), ("#",))
    assert topics.why_not_answerable("p/ask/d", "d") is not None
    assert topics.why_not_answerable("farm/d/ask", "d") is not None
    assert topics.why_not_answerable("p/answer/d", "d") is None


@pytest.mark.parametrize("name", ["status", "info", "stats", "event/decision", "cmd/pause"])
def test_gateways_own_topics_take_no_answers(name: str) -> None:
    topics = build_topic_map("p", (), ("#",))
    assert topics.why_not_answerable(f"p/{name}", "d") is not None
    assert topics.why_not_answerable(f"q/{name}", "d") is None


def test_another_devices_answer_topic_takes_no_answer() -> None:
    topics = build_topic_map("p", (), ("#",))
    assert topics.why_not_answerable("p/answer/pump7/42", "pump7") is None
    assert topics.why_not_answerable("p/answer/pump7/42", "gate") is not None
    assert topics.why_not_answerable("q/answer/pump7/42", "gate") is None


def test_listener_may_have_a_strategy_of_its_own() -> None:
    listeners = (("farm/+/ask", 1, "x/{device}"), ("shed/+/ask", 1, "y/{device}"))
    topics = build_topic_map("p", listeners, ("#",), {"farm/+/ask": "knn", "shed/+/ask": None})
    found = [topics.rule_for(topic) for topic in ("farm/a/ask", "shed/a/ask", "p/ask/a")]
    assert [rule and rule.strategy for rule in found] == ["knn", None, None]


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("p/ask/d1", "p/progress/d1"),
        ("p/ask/d1/7", "p/progress/d1/7"),
        ("p/ask/d1/a/b", "p/progress/d1/a/b"),
        ("farm/d1/ask", "p/progress/d1"),
        ("p/ask", None),
        ("p/ask/\x01", None),
        ("elsewhere/d1", None),
    ],
)
def test_progress_is_told_below_the_gateways_own_prefix(topic: str, expected: str | None) -> None:
    topics = build_topic_map("p", (("farm/+/ask", 1, "farm/{device}/answer"),), ("#",))
    assert topics.progress_topic(topic) == expected


def test_progress_is_not_told_where_it_would_be_taken_for_a_question() -> None:
    topics = build_topic_map("p", (("p/progress/#", 2, "farm/{device}/answer"),), ("#",))
    assert topics.progress_topic("p/ask/d1") is None
