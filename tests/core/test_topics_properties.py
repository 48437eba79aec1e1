"""Whatever a topic holds, an answer goes to its own requester, or nowhere."""

from __future__ import annotations

import pytest
from fakes import PREFIX, incoming
from fakes import decoded as decode_with
from hypothesis import assume, given
from hypothesis import strategies as st

from mqrouter.core.encode import encode_answer
from mqrouter.core.request import Answer, Incoming, Refused, Request
from mqrouter.core.topics import MAX_TOPIC_BYTES, TopicMap, build_topic_map, is_publishable, matches, why_not_a_filter
from mqrouter.errors import ErrorCode

LISTENERS = (
    ("farm/+/ask", 1, "farm/{device}/answer"),
    ("tele/+/+/question", 2, "{prefix}/told/{device}"),
    ("plain/#", 1, "heard/{device}/here"),
)
TOPICS = build_topic_map(PREFIX, LISTENERS, ("#",))

# Names as an attacker picks them: parts of the topics and templates in use, wildcards, controls, look-alikes.
odd_names = st.sampled_from(
    [
        *("ask", "answer", "status", "farm", "mqrouter", "question", "told", "{device}", "{prefix}", "$SYS", "$share"),
        *("+", "#", "", " ", ".", "..", "\0", "\n", "\x1b[2J", "\x9b2J", "\u202e", "\u2028", "\ufeff", "\ufffe"),
        *("d1", "D1", "\uff44\uff11", "d1\u0301", "d\u200b1", "%2B", "a+b", "x" * 300, "\U0001f33e"),
    ]
)
levels = odd_names | st.text(st.characters(codec="utf-8"), max_size=4)
topics = st.lists(levels, min_size=1, max_size=6).map("/".join)
named = st.sampled_from([f"{PREFIX}/ask", f"{PREFIX}/answer", "farm", "tele/x", "heard", "plain", PREFIX])
near_topics = st.builds(lambda start, end: f"{start}/{end}", named, topics)
any_topic = topics | near_topics
devices = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=5) | odd_names.filter(bool)
plain_devices = devices.filter(lambda name: is_publishable(f"x/{name}"))


def decoded(message: Incoming, topic_map: TopicMap = TOPICS) -> Request | Refused:
    return decode_with(message, topics=topic_map)


# --- filters ----------------------------------------------------------------------------------------


def matches_slowly(topic_filter: str, topic: str) -> bool:
    """MQTT 5, section 4.7, level by level from the end of the filter's text."""

    def rest(wanted: list[str], found: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not found:
            return not wanted and not found
        return wanted[0] in ("+", found[0]) and rest(wanted[1:], found[1:])

    is_hidden = topic.startswith("$") and not topic_filter.startswith("$")
    names = topic.split("/")
    parent = topic_filter.removesuffix("/#")
    if is_hidden and topic_filter[:1] in ("+", "#"):
        return False
    return rest(topic_filter.split("/"), names) or (parent != topic_filter and rest(parent.split("/"), names))


filters = st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from(["/".join(parts) or "a", "/".join([*parts, "#"])])
)
short_topics = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=5).map("/".join)


@given(filters, short_topics)
def test_filter_matches_as_a_second_reading_of_the_standard_does(topic_filter: str, topic: str) -> None:
    assert why_not_a_filter(topic_filter) is None
    assert matches(topic_filter, topic) is matches_slowly(topic_filter, topic)


@given(any_topic)
def test_what_is_publishable_is_a_topic_name(topic: str) -> None:
    assume(is_publishable(topic))
    assert not topic.startswith("$")
    assert not set(topic) & set("+#\0\n\x1b")
    assert 0 < len(topic.encode("utf-8")) <= MAX_TOPIC_BYTES
    assert matches(topic, topic) and why_not_a_filter(topic) is None


@pytest.mark.parametrize("char", ["\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"])
def test_topic_that_ends_a_connection_is_not_publishable(char: str) -> None:
    """Brokers take a non-character for a protocol error (MQTT 5, 1.5.4): the answer would never leave the outbox."""
    assert not is_publishable(f"replies/{char}")


# --- where answers go -------------------------------------------------------------------------------


@given(any_topic, st.none() | any_topic, st.none() | st.binary(max_size=4))
def test_no_answer_becomes_a_question(topic: str, response_topic: str | None, correlation: bytes | None) -> None:
    item = decoded(incoming(topic=topic, response_topic=response_topic, correlation=correlation))
    if item.reply is None:
        assert isinstance(item, Refused)
        return
    assert is_publishable(item.reply.topic)
    assert not any(matches(rule.filter, item.reply.topic) for rule in TOPICS.rules)
    assert item.reply.correlation == correlation
    assert encode_answer(Answer(text="x"), item.reply, "r1", None).topic == item.reply.topic


@given(any_topic, st.none() | any_topic)
def test_answer_topic_is_the_one_asked_for_or_the_devices_own(topic: str, response_topic: str | None) -> None:
    item = decoded(incoming(topic=topic, response_topic=response_topic))
    if item.reply is None or item.reply.topic == response_topic:
        return
    rule = TOPICS.rule_for(topic)
    assert rule is not None
    assert item.reply.topic == rule.answer_topic(topic)
    assert item.device and item.device in item.reply.topic.split("/")
    if response_topic is not None:
        assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REPLY_TOPIC


@given(plain_devices, topics)
def test_levels_of_a_topic_cannot_choose_another_answer_topic(device: str, rest: str) -> None:
    topic = f"{PREFIX}/ask/{device}/{rest}"
    item = decoded(incoming(topic=topic))
    wanted = f"{PREFIX}/answer/{device}/{rest}" if rest else f"{PREFIX}/answer/{device}"
    assert item.device == device
    assert (item.reply and item.reply.topic) == (wanted if is_publishable(wanted) else None)


@given(plain_devices, plain_devices, st.sampled_from(["", "/7", "/a/b"]))
@pytest.mark.parametrize(
    ("asked", "answers"),
    [(f"{PREFIX}/ask/%s", f"{PREFIX}/answer/%s"), ("farm/%s/ask", "farm/%s/answer"), ("plain/%s", "heard/%s/here")],
)
def test_no_device_has_its_answer_sent_to_another(asked: str, answers: str, device: str, other: str, more: str) -> None:
    own, theirs = answers % device + more, answers % other + more
    is_own = decoded(incoming(topic=asked % device, response_topic=own))
    assert is_own.reply is not None and is_own.reply.topic == own
    assert isinstance(is_own, Request) or TOPICS.rule_for(asked % device) is None
    if device != other:
        item = decoded(incoming(topic=asked % device, response_topic=theirs))
        assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REPLY_TOPIC
        assert item.reply is not None and item.reply.topic == answers % device


@given(plain_devices, plain_devices)
@pytest.mark.parametrize("name", ["status", "info", "stats", "event/x", "cmd/pause", "feedback/%s", "progress/%s"])
def test_no_answer_poses_as_the_gateway_or_as_a_device(name: str, device: str, other: str) -> None:
    assume(device != other)
    response_topic = f"{PREFIX}/{name.replace('%s', other)}"
    item = decoded(incoming(topic=f"{PREFIX}/ask/{device}", response_topic=response_topic))
    assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REPLY_TOPIC


@given(any_topic, any_topic, st.binary(min_size=1, max_size=3))
def test_equal_correlations_of_different_askers_are_different_questions(
    topic: str, other: str, correlation: bytes
) -> None:
    first, second = (
        decoded(incoming(topic=name, response_topic="replies/x", correlation=correlation)) for name in (topic, other)
    )
    if isinstance(first, Request) and isinstance(second, Request):
        assert (first.dedupe_key == second.dedupe_key) is (first.device == second.device)


@given(plain_devices, st.lists(st.tuples(plain_devices, st.sampled_from(["", "b", "7"])), min_size=2, max_size=2))
def test_dedupe_keys_do_not_run_together(device: str, pairs: list[tuple[str, str]]) -> None:
    """Moving a character from one part of the key to the next makes another key."""
    items = [
        decoded(
            incoming(
                topic=f"{PREFIX}/ask/{device}", response_topic=f"replies/{reply}", correlation=name.encode() or None
            )
        )
        for reply, name in pairs
    ]
    keys = {item.dedupe_key for item in items if isinstance(item, Request) and item.dedupe_key is not None}
    assert len(keys) == len({pair for pair in pairs if pair[1]})


def test_device_at_the_longest_topic_gets_no_longer_answer_topic() -> None:
    """`answer` is longer than `ask`: what would not fit into a PUBLISH is refused, not published."""
    start = f"{PREFIX}/ask/d/"
    topic = start + "x" * (MAX_TOPIC_BYTES - len(start))
    item = decoded(incoming(topic=topic))
    assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REPLY_TOPIC and item.reply is None
    answered = decoded(incoming(topic=topic, response_topic="replies/me"))
    assert answered.reply is not None and answered.reply.topic == "replies/me"
