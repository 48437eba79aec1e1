"""What a request means, and what is refused and how."""

from __future__ import annotations

import json

import pytest
from fakes import PREFIX, START_MS, decoded, incoming, refused, reply_address, request

from mqrouter.core.decode import Limits, dedupe_key
from mqrouter.core.encode import encode_answer
from mqrouter.core.request import Answer, Form, Refused, ReplyAddress, Request
from mqrouter.core.topics import build_topic_map
from mqrouter.errors import ErrorCode

ANSWER_TOPIC = f"{PREFIX}/answer/d1"


def error_of(item: Refused) -> bytes:
    assert item.reply is not None
    answer = Answer(error=item.code, error_message=item.message)
    return encode_answer(answer, item.reply, item.id, None).payload


# --- form -------------------------------------------------------------------------------------------


def test_text_is_a_question() -> None:
    item = request("  is it wet? ")
    assert item.question.text == "  is it wet? "
    assert item.question.form is Form.TEXT
    assert item.reply == ReplyAddress(ANSWER_TOPIC, None, None, Form.TEXT)
    assert item.dedupe_key is None


def test_json_is_read_in_full() -> None:
    item = request(
        json.dumps(
            {
                "question": "wet?",
                "id": "q-1",
                "session": "s",
                "context": "probe 3",
                "ttl_s": 60,
                "priority": 9,
                "max_bytes": 200,
                "private": True,
                "route": "weather",
                "progress": True,
                "accept_provisional": True,
            }
        )
    )
    question = item.question
    assert (question.wants_progress, question.accepts_provisional, question.has_own_messages) == (True, True, False)
    assert (question.text, question.client_id, question.session, question.context) == ("wet?", "q-1", "s", "probe 3")
    assert (question.ttl_s, question.priority, question.max_bytes) == (60.0, 9, 200)
    assert (question.is_private, question.route, question.form) == (True, "weather", Form.JSON)
    assert (item.reply.client_id, item.reply.max_bytes) == ("q-1", 200)


def test_conversation_given_by_the_sender_is_known_as_such() -> None:
    assert request('{"messages": [{"role": "user", "content": "wet?"}]}').question.has_own_messages


def test_messages_keep_their_order_and_the_last_user_turn_is_the_question() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "how deep?"},
    ]
    question = request(json.dumps({"messages": messages})).question
    assert [(m.role, m.content) for m in question.messages] == [(m["role"], m["content"]) for m in messages]
    assert question.text == "how deep?"
    assert question.chars == len("be brief" + "hi" + "hello" + "how deep?")


@pytest.mark.parametrize("payload", ['{"question": "x"}', '\n\t {"question": "x"}', " " * 200 + '{"question": "x"}'])
def test_payload_that_begins_with_a_brace_is_json(payload: str) -> None:
    assert request(payload).question.form is Form.JSON


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/vnd.farm+json", ""],
)
def test_json_content_types(content_type: str) -> None:
    assert request('{"question": "x"}', content_type=content_type).question.form is Form.JSON


def test_text_content_type_keeps_braces_as_text() -> None:
    assert request('{"question": "x"}', content_type="text/plain;charset=utf-8").question.text == '{"question": "x"}'


def test_json_content_type_on_text_is_a_bad_request() -> None:
    item = refused("not json", content_type="application/json")
    assert item.code is ErrorCode.BAD_REQUEST
    assert item.reply is not None and item.reply.form is Form.JSON


def test_nul_inside_text_is_kept() -> None:
    assert request(b"a\0b").question.text == "a\0b"


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "text/html", "json"])
def test_other_content_types_are_unsupported(content_type: str) -> None:
    item = refused("x", content_type=content_type)
    assert item.code is ErrorCode.UNSUPPORTED_TYPE
    assert item.reply is not None and item.reply.topic == ANSWER_TOPIC


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", ErrorCode.BAD_REQUEST),
        (b" \r\n\t\0\0", ErrorCode.BAD_REQUEST),
        (b"\xff\xfe", ErrorCode.NOT_UTF8),
        (b"ok \xc3", ErrorCode.NOT_UTF8),
        (b"{", ErrorCode.BAD_REQUEST),
        (b"{}", ErrorCode.BAD_REQUEST),
        (b'{"question": "\xff"}', ErrorCode.NOT_UTF8),
        (b'{"question": ""}', ErrorCode.BAD_REQUEST),
        (b'{"question": 7}', ErrorCode.BAD_REQUEST),
        (b'{"question": null}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x"} trailing', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "messages": []}', ErrorCode.BAD_REQUEST),
        (b'{"messages": []}', ErrorCode.BAD_REQUEST),
        (b'{"messages": {}}', ErrorCode.BAD_REQUEST),
        (b'{"messages": ["x"]}', ErrorCode.BAD_REQUEST),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', ErrorCode.BAD_REQUEST),
        (b'{"messages": [{"role": [], "content": "x"}]}', ErrorCode.BAD_REQUEST),
        (b'{"messages": [{"role": {"a": 1}, "content": "x"}]}', ErrorCode.BAD_REQUEST),
        (b'{"messages": [{"role": "user", "content": ["x"]}]}', ErrorCode.BAD_REQUEST),
        (b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}', "bad_request"),
        (b'{"messages": [{"role": "user", "content": " "}]}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": NaN}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": Infinity}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": 1e999}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": 0}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": -1}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": true}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "ttl_s": "60"}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "priority": 10}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "priority": -1}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "priority": 1.5}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": "q", "max_bytes": 128}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "private": 1}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "private": "yes"}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": ""}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": 1.5}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": true}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": "' + b"a" * 129 + b'"}', ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": ' + b"7" * 129 + b"}", ErrorCode.BAD_REQUEST),
        (b'{"question": "x", "id": ' + b"7" * 900 + b"}", ErrorCode.BAD_REQUEST),
        (b'{"question": "\\ud800"}', ErrorCode.NOT_UTF8),
        (b'{"question": "x", "context": "\\udfff"}', ErrorCode.NOT_UTF8),
        (b'{"question": "x", "id": "\\ud800"}', ErrorCode.NOT_UTF8),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', ErrorCode.NOT_UTF8),
        (b"x" * 1001, ErrorCode.TOO_LARGE),
    ],
)
def test_bad_payload_gets_its_code_at_the_answer_topic(payload: bytes, code: ErrorCode) -> None:
    item = refused(payload)
    assert item.code == code
    assert item.message
    assert item.reply is not None and item.reply.topic == ANSWER_TOPIC
    assert error_of(item)


def test_surrogate_pair_spelt_in_json_is_one_character() -> None:
    assert request(b'{"question": "\\ud83d\\ude00"}').question.text == "\N{GRINNING FACE}"


def test_payload_at_the_limit_is_taken() -> None:
    assert len(request(b"x" * 1000).question.text) == 1000


def test_too_large_says_both_sizes() -> None:
    assert refused(b"x" * 1001).message == "1001 bytes; this gateway takes 1000"


def nested(depth: int) -> bytes:
    return b'{"question": "x", "extra": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_json_depth_is_limited() -> None:
    assert request(nested(8)).question.text == "x"
    item = refused(nested(9))
    assert (item.code, item.message) == (ErrorCode.BAD_REQUEST, "JSON nested deeper than 8 levels")


def test_brackets_in_strings_are_no_depth() -> None:
    assert request(json.dumps({"question": '[[[[[[[[[[{{{{ \\" [[['})).question.text.startswith("[[[")


def test_depth_limit_of_one_takes_a_flat_object() -> None:
    flat = Limits(max_payload_bytes=1000, max_json_depth=1, default_ttl_s=1.0, max_ttl_s=1.0)
    assert not isinstance(decoded(incoming('{"question": "{}"}'), limits=flat), Refused)
    assert isinstance(decoded(incoming('{"question": "x", "extra": []}'), limits=flat), Refused)


def test_topic_that_is_not_utf8_gets_no_answer() -> None:
    item = refused("x", topic=None)
    assert (item.code, item.reply, item.device) == (ErrorCode.NOT_UTF8, None, "")


@pytest.mark.parametrize("topic", [f"{PREFIX}/ask", f"{PREFIX}/ask/", "elsewhere/x"])
def test_topic_without_a_device_gets_no_answer(topic: str) -> None:
    item = refused("x", topic=topic)
    assert (item.code, item.reply) == (ErrorCode.BAD_REQUEST, None)


def test_topic_without_a_device_is_answered_at_its_response_topic() -> None:
    item = refused("x", topic=f"{PREFIX}/ask", response_topic="replies/me", correlation=b"c")
    assert item.reply == ReplyAddress("replies/me", b"c", None, Form.TEXT)


@pytest.mark.parametrize(
    "topic", ["a/+", "#", "$SYS/x", "$share/g/a", "", "a\0b", "a\nb", f"{PREFIX}/ask/d2", "x" * 65_536]
)
def test_bad_response_topic_is_refused_at_the_default_topic(topic: str) -> None:
    item = refused("x", response_topic=topic, correlation=b"\x01")
    assert item.code is ErrorCode.BAD_REPLY_TOPIC
    assert item.reply == ReplyAddress(ANSWER_TOPIC, b"\x01", None, Form.TEXT)


def test_response_topic_outside_the_allow_list_is_refused() -> None:
    topics = build_topic_map(PREFIX, (), ("replies/#", f"{PREFIX}/answer/#"))
    item = decoded(incoming("x", response_topic="other/me"), topics=topics)
    assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REPLY_TOPIC
    assert not isinstance(decoded(incoming("x", response_topic="replies/me"), topics=topics), Refused)


def test_device_name_that_cannot_be_answered_is_refused_silently() -> None:
    item = refused("x", topic=f"{PREFIX}/ask/d\x01")
    assert (item.code, item.reply) == (ErrorCode.BAD_REPLY_TOPIC, None)


def test_message_that_expired_on_its_way_is_refused() -> None:
    assert refused("x", expiry_s=0).code is ErrorCode.EXPIRED


def test_error_echoes_the_id_of_a_json_request() -> None:
    item = refused('{"id": "q7", "question": ""}')
    assert json.loads(error_of(item))["id"] == "q7"
    assert json.loads(error_of(item))["error"]["code"] == "bad_request"


def test_error_echoes_the_id_even_where_the_response_topic_is_bad() -> None:
    item = refused('{"id": 7, "question": "x"}', response_topic="a/+")
    assert (item.code, json.loads(error_of(item))["id"]) == (ErrorCode.BAD_REPLY_TOPIC, "7")


def test_error_of_unreadable_json_names_the_request_instead() -> None:
    item = refused('{"id": "q7", ')
    assert json.loads(error_of(item))["id"] == item.id


def test_json_behind_much_white_space_gets_a_json_error() -> None:
    assert json.loads(error_of(refused(" " * 200 + '{"id": "q7"}')))["id"] == "q7"


def test_text_error_is_one_line_of_text() -> None:
    item = refused(b"\xff")
    assert error_of(item) == b"error not_utf8: byte 0 is not UTF-8"


# --- ids, time to live, duplicates ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"), [('"a"', "a"), ("7", "7"), ("-3", "-3"), ("0", "0"), ('"\\u00e4"', "ä")]
)
def test_id_may_be_a_string_or_a_whole_number(value: str, expected: str) -> None:
    assert request(f'{{"question": "x", "id": {value}}}').reply.client_id == expected


def test_id_may_come_with_the_topic() -> None:
    item = request("x", topic=f"{PREFIX}/ask/d1/42")
    assert item.reply == ReplyAddress(f"{ANSWER_TOPIC}/42", None, "42", Form.TEXT)


def test_id_in_the_payload_goes_before_the_topic() -> None:
    item = request('{"question": "x", "id": "p"}', topic=f"{PREFIX}/ask/d1/42")
    assert (item.reply.topic, item.reply.client_id) == (f"{ANSWER_TOPIC}/42", "p")


@pytest.mark.parametrize(
    ("ttl", "expiry_s", "expected_s"),
    [
        (None, None, 3600.0),
        ("60", None, 60.0),
        ("0.5", None, 0.5),
        ("60", 5, 5.0),
        ("5", 60, 5.0),
        (None, 5, 5.0),
        ("100000", None, 7200.0),
        ("9000", 100_000, 7200.0),
    ],
)
def test_shorter_of_message_expiry_and_ttl_counts_cut_to_the_limit(
    ttl: str | None, expiry_s: int | None, expected_s: float
) -> None:
    payload = '{"question": "x"}' if ttl is None else f'{{"question": "x", "ttl_s": {ttl}}}'
    item = request(payload, expiry_s=expiry_s)
    assert item.expires_at_ms - START_MS == int(1000 * expected_s)
    assert item.client_gave_expiry is (expiry_s is not None)


def test_nameless_request_has_no_dedupe_key() -> None:
    assert dedupe_key(reply_address(), "d") is None
    assert dedupe_key(reply_address(correlation=b""), "d") is None


def test_same_name_gives_the_same_dedupe_key() -> None:
    assert dedupe_key(reply_address(client_id="a"), "d") == dedupe_key(
        reply_address(client_id="a", form=Form.JSON), "d"
    )


def test_dedupe_keys_differ_by_topic_device_and_kind_of_name() -> None:
    keys = [
        dedupe_key(reply_address(client_id="a"), "d"),
        dedupe_key(reply_address(correlation=b"a"), "d"),
        dedupe_key(reply_address(correlation=b"ia"), "d"),
        dedupe_key(reply_address(client_id="a"), "e"),
        dedupe_key(reply_address(client_id="a", topic="u"), "d"),
        dedupe_key(reply_address(client_id="ad"), ""),
        dedupe_key(reply_address(correlation=b"", topic="tca"), ""),
        dedupe_key(reply_address(correlation=b"a"), ""),
    ]
    assert len(set(keys)) == len(keys)


def test_correlation_goes_before_id() -> None:
    both = dedupe_key(reply_address(client_id="a", correlation=b"c"), "d")
    assert both == dedupe_key(reply_address(client_id="b", correlation=b"c"), "d")


def test_listener_with_a_fixed_last_level_gives_no_id() -> None:
    topics = build_topic_map(PREFIX, (("farm/+/question", 1, "{prefix}/answer/{device}"),), ("#",))
    first = decoded(incoming("one?", topic="farm/probe/question"), topics=topics)
    assert not isinstance(first, Refused)
    assert (first.device, first.reply.topic) == ("probe", f"{PREFIX}/answer/probe")
    assert (first.reply.client_id, first.dedupe_key) == (None, None)


def test_byte_order_mark_hides_no_json() -> None:
    """A private question that was taken for text could leave the gateway."""
    item = decoded(incoming(b'\xef\xbb\xbf{"question": "who owes me", "private": true, "id": "x"}'))
    assert isinstance(item, Request)
    assert (item.question.text, item.question.is_private, item.reply.client_id) == ("who owes me", True, "x")


def test_byte_order_mark_is_no_part_of_a_text() -> None:
    item = decoded(incoming(b"\xef\xbb\xbfopen valve 3?"))
    assert isinstance(item, Request)
    assert item.question.text == "open valve 3?"


@pytest.mark.parametrize("name", ["privat", "Private", "is_private", "privte"])
def test_misspelt_private_is_no_request(name: str) -> None:
    """Overlooked, it would let a private question leave the gateway."""
    item = decoded(incoming(json.dumps({"question": "a", name: True})))
    assert isinstance(item, Refused)
    assert (item.code, "private" in item.message) == (ErrorCode.BAD_REQUEST, True)


def test_other_unknown_keys_are_the_senders_business() -> None:
    assert isinstance(decoded(incoming('{"question": "a", "firmware": "1.2", "session_id": 4}')), Request)


# --- strategy ---------------------------------------------------------------------------------------


def test_question_may_name_its_strategy() -> None:
    assert request('{"question": "wet?", "strategy": "knn"}').question.strategy == "knn"
    assert request('{"question": "wet?"}').question.strategy is None


def test_unknown_strategy_is_refused_naming_the_known_ones() -> None:
    item = refused('{"question": "wet?", "strategy": "dice"}')
    assert item.code is ErrorCode.BAD_REQUEST
    assert item.message == (
        "there is no strategy 'dice'; known: cascade, heuristic, hybrid, knn, learned, perf, semantic, token"
    )
