"""A hundred thousand broken requests: none raises, none is met with silence, none gets past a limit.

What is expected of each is written down here a second time, and differently from the code that is under test.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import PREFIX, START_MS, incoming

from mqrouter.core.decode import Limits, decode, decode_question
from mqrouter.core.encode import encode_answer, least_max_bytes
from mqrouter.core.request import Answer, Form, Incoming, Refused, Request, RequestId
from mqrouter.core.topics import build_topic_map
from mqrouter.errors import ErrorCode

SEED = 20_240_917
NUMBER = 100_000
MAX_BYTES = 400
MAX_DEPTH = 6
MAX_TTL_S = 7200.0
MAX_ID_CHARS = 128
MAX_ERROR_CHARS = 300

LIMITS = Limits(max_payload_bytes=MAX_BYTES, max_json_depth=MAX_DEPTH, default_ttl_s=3600.0, max_ttl_s=MAX_TTL_S)
REPLIES = ("replies/#", f"{PREFIX}/#", "farm/#", "$SYS/#", "tele/#")
TOPICS = build_topic_map(PREFIX, (("farm/+/ask", 1, "farm/{device}/answer"), ("tele/#", 2, "{prefix}/told")), REPLIES)

ODD = ["+", "#", "\0", "\n", "\x1b[2J", "\x85", "$SYS", "$share/g", "/", "..", "\u202e", "\u2028", "\ufffe", "é" * 90]
PAYLOADS = [
    "will there be frost tonight?",
    '{"question": "will it freeze?"}',
    '{"question": "q", "id": "7", "ttl_s": 60, "priority": 3, "max_bytes": 400, "private": true, "route": "frost"}',
    '{"question": "q", "id": 7, "session": "s", "context": "probe 3", "ttl_s": 0.5, "private": false}',
    '{"messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "how deep?"}]}',
    '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]}',
    '\ufeff{"question": "from Windows", "id": "w1"}',
    '{"question": "a", "x": [[[[[[1]]]]]]}',
    '{"question": "half \\ud83c", "id": "\\udf3e"}',
    '{"private": true, "question": "a", "private": false}',
    '["question"]',
    "{",
    "",
    " \r\n\0",
    "x" * (MAX_BYTES + 1),
    '{"question": "' + "x" * MAX_BYTES + '", "id": "long"}',
]
TOKENS = [
    *(token.encode() for token in ODD),
    *(f'"{name}": '.encode() for name in ("question", "id", "ttl_s", "priority", "private", "Private", "messages")),
    b'{"',
    b'"}',
    b"{",
    b"}",
    b"[",
    b"]" * 7,
    b"[" * 7,
    b",",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"9" * 30,
    b'"user"',
    b'"role": 1',
]
VALUES: list[Any] = [0, 1, -1, 7.5, 10**30, "", "x", "\x1b[2J\n", "y" * 129, True, False, None, [], {}, "\ud800"]
ASK_TOPICS: list[str | None] = [
    f"{PREFIX}/ask/d1",
    f"{PREFIX}/ask/d1/7",
    f"{PREFIX}/ask/d1/7/8/9",
    f"{PREFIX}/ask//7",
    f"{PREFIX}/ask",
    "farm/pump/ask",
    "farm//ask",
    "tele/a/b",
    "tele/a/b/c/d",
    "tele",
    "elsewhere",
    None,
]
REPLY_TOPICS = [
    "replies/me",
    "replies/" + "x" * 70_000,
    f"{PREFIX}/answer/d1/7",
    f"{PREFIX}/answer/other",
    f"{PREFIX}/ask/d1",
    f"{PREFIX}/status",
    f"{PREFIX}/event/x",
    f"{PREFIX}/feedback/d1",
    "farm/pump/answer",
    "farm/pump/ask",
    "farm/pump/said",
    "tele/x",
    "",
]
CONTENT_TYPES = ["text/plain", "application/json; charset=utf-8", "x/y+json", "application/gzip", "", "+", "z/" * 900]


# --- making inputs ----------------------------------------------------------------------------------


class Maker:
    """Draws requests: some of the corpus, most of them damaged once or more."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._corpus = [text.encode("utf-8") for text in PAYLOADS]

    def message(self) -> Incoming:
        draw = self._random
        return incoming(
            self._payload(),
            topic=self._text(draw.choice(ASK_TOPICS)) if draw.random() < 0.5 else f"{PREFIX}/ask/d1/7",
            response_topic=self._text(draw.choice(REPLY_TOPICS)) if draw.random() < 0.3 else None,
            correlation=draw.choice([None, None, b"", b"\0\xff", draw.randbytes(9)]),
            content_type=self._text(draw.choice(CONTENT_TYPES)) if draw.random() < 0.3 else None,
            expiry_s=draw.choice([None, None, None, 0, 1, 60, 2**32 - 1]),
        )

    def _payload(self) -> bytes:
        payload = self._random.choice(self._corpus)
        for _ in range(self._random.choice([0, 0, 1, 1, 2, 6])):
            payload = self._random.choice(DAMAGES)(self._random, payload, self._corpus)
        return payload

    def _text(self, text: str | None) -> str | None:
        """A topic or property, now and then with something odd in it; what MQTT could not carry is left out."""
        if text is None or self._random.random() < 0.7:
            return text
        at = self._random.randint(0, len(text))
        return text[:at] + self._random.choice(ODD) + text[at:]


Damage = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _insert(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = draw.randint(0, len(payload))
    return payload[:at] + draw.choice(TOKENS) + payload[at:]


def _replace(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = draw.randint(0, len(payload))
    token = draw.choice(TOKENS)
    return payload[:at] + token + payload[at + len(token) :]


def _flip(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    if not payload:
        return payload
    damaged = bytearray(payload)
    damaged[draw.randrange(len(payload))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _cut(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    start, end = sorted((draw.randint(0, len(payload)), draw.randint(0, len(payload))))
    return payload[:start] + payload[end:]


def _double(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    start, end = sorted((draw.randint(0, len(payload)), draw.randint(0, len(payload))))
    return payload[:end] + payload[start:]


def _splice(draw: random.Random, payload: bytes, corpus: Sequence[bytes]) -> bytes:
    other = draw.choice(corpus)
    return payload[: draw.randint(0, len(payload))] + other[draw.randint(0, len(other)) :]


def _field(draw: random.Random, payload: bytes, _corpus: Sequence[bytes]) -> bytes:
    """One more field, well-formed and in its place: the kind of damage that gets far."""
    if not payload.endswith(b"}"):
        return payload
    name = draw.choice(["id", "ttl_s", "priority", "max_bytes", "session", "route", "private", "is_private", "context"])
    return payload[:-1] + f", {json.dumps(name)}: {json.dumps(draw.choice(VALUES))}".encode() + b"}"


DAMAGES: tuple[Damage, ...] = (_insert, _replace, _flip, _cut, _double, _splice, _field, _field)


# --- what is expected -------------------------------------------------------------------------------


OWN_RULES = (
    (re.compile(rf"{PREFIX}/ask/(?P<device>[^/]+)(/(?P<id>.*))?", re.DOTALL), f"{PREFIX}/answer/{{device}}"),
    (re.compile(r"farm/(?P<device>[^/]+)/(?P<id>)ask", re.DOTALL), "farm/{device}/answer"),
    (re.compile(r"tele/[^/]*/(?P<device>[^/]+)(/(?P<id>.*))?", re.DOTALL), f"{PREFIX}/told"),
)
REQUEST_TOPIC = re.compile(rf"{PREFIX}/ask(/.*)?|farm/[^/]*/ask|tele(/.*)?", re.DOTALL)
ALLOWED = re.compile(rf"replies(/.*)?|{PREFIX}(/.*)?|farm(/.*)?", re.DOTALL)
GATEWAYS_OWN = re.compile(rf"{PREFIX}/(status|info|stats|(event|cmd|progress|feedback)(/.*)?)", re.DOTALL)
ANSWERS = re.compile(rf"({PREFIX}/answer/(?P<device>[^/]*)|farm/(?P<other>[^/]*)/answer)(/.*)?", re.DOTALL)
NOT_IN_A_TOPIC = re.compile(r"[+#\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def is_plain(topic: str) -> bool:
    return bool(
        topic
        and not topic.startswith("$")
        and len(topic.encode()) <= 65_535
        and not NOT_IN_A_TOPIC.search(topic)
        and not REQUEST_TOPIC.fullmatch(topic)
    )


def own_address(topic: str | None) -> tuple[str, str | None]:
    """Returns (device, answer topic), as the topic of the request alone gives them."""
    for pattern, answer in OWN_RULES:
        if topic is not None and (found := pattern.fullmatch(topic)):
            address = answer.format(device=found["device"]) + (f"/{found['id']}" if found["id"] else "")
            return found["device"], address if is_plain(address) else None
    return "", None


def may_answer_to(topic: str, device: str) -> bool:
    answers = ANSWERS.fullmatch(topic)
    return bool(
        is_plain(topic)
        and ALLOWED.fullmatch(topic)
        and not GATEWAYS_OWN.fullmatch(topic)
        and (answers is None or (answers["device"] or answers["other"] or "") == device)
    )


def expected_address(message: Incoming) -> str | None:
    device, own = own_address(message.topic)
    asked = message.response_topic
    return asked if asked is not None and may_answer_to(asked, device) else own


def readable_object(message: Incoming) -> list[tuple[str, Any]] | None:
    """Returns the members of a JSON object in their order, each as often as it is there; None for other payloads."""
    try:
        text = message.payload.decode("utf-8").removeprefix("\ufeff")
        members = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    is_object = text.lstrip().startswith("{")
    return members if is_object else None


# --- what holds of each -----------------------------------------------------------------------------


def check(message: Incoming) -> str:
    """Returns the name of the outcome; raises AssertionError where a promise is broken."""
    item = decode(message, TOPICS, LIMITS, RequestId("r1"), START_MS)
    assert (item.reply and item.reply.topic) == expected_address(message), "another address, or silence"
    assert item.device == own_address(message.topic)[0] or isinstance(item, Refused)
    if item.reply is not None:
        assert item.reply.correlation == message.correlation
    if isinstance(item, Refused):
        check_refusal(message, item)
        return str(item.code)
    check_request(message, item)
    return f"request ({item.question.form})"


def check_refusal(message: Incoming, item: Refused) -> None:
    assert 0 < len(item.message) <= MAX_ERROR_CHARS, f"{len(item.message)} characters of error message"
    assert item.message.isprintable(), repr(item.message)
    if item.reply is None:
        return
    answer = Answer(error=item.code, error_message=item.message)
    body = encode_answer(answer, item.reply, item.id, None).payload.decode("utf-8")
    assert str(item.code) in body
    if item.reply.form is not Form.JSON or len(message.payload) > MAX_BYTES or item.code is ErrorCode.UNSUPPORTED_TYPE:
        return
    found = dict(readable_object(message) or ()).get("id")
    if isinstance(found, str) and is_id(found) and is_shallow(message.payload) and not has_twins(message.payload):
        assert json.loads(body)["id"] == found, "its sender cannot tell which question was refused"


def is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_CHARS and not re.search("[\ud800-\udfff]", text)


def has_twins(payload: bytes) -> bool:
    """True where an object in the payload gives one key twice: JSON leaves open what that means."""
    members: list[list[str]] = []
    json.loads(payload.decode("utf-8-sig"), object_pairs_hook=lambda pairs: members.append([name for name, _ in pairs]))
    return any(len(set(names)) < len(names) for names in members)


def is_shallow(payload: bytes) -> bool:
    return payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH


def check_request(message: Incoming, item: Request) -> None:
    question = item.question
    assert len(message.payload) <= MAX_BYTES
    assert question.text.strip(" \t\r\n\0")
    assert question == decode_question(message.payload, message.content_type, item.reply.client_id, LIMITS)
    for text in (question.text, question.context, question.session, question.route, question.client_id):
        assert text is None or text.encode("utf-8") is not None
    assert all(name is None or 0 < len(name) <= MAX_ID_CHARS for name in (question.session, question.route))
    assert 0 <= question.priority <= 9
    assert question.max_bytes is None or question.max_bytes >= least_max_bytes(question.client_id)
    check_times(message, item)
    assert (item.dedupe_key is None) is not bool(message.correlation or item.reply.client_id is not None)
    if question.form is Form.JSON:
        members = readable_object(message)
        assert members is not None
        names = [name for name, _ in members]
        assert question.is_private is (("private", True) in members), "a mark of privacy got lost"
        assert len(set(names)) == len(names), "which of two values holds is anybody's guess"


def check_times(message: Incoming, item: Request) -> None:
    left_ms = item.expires_at_ms - START_MS
    assert 0 < left_ms <= 1000 * MAX_TTL_S
    if message.expiry_s is not None:
        assert left_ms <= 1000 * message.expiry_s
    if item.question.ttl_s is not None:
        assert left_ms <= 1000 * item.question.ttl_s


# --- tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("topic", ASK_TOPICS)
def test_undamaged_request_is_what_the_checks_expect(topic: str | None, payload: str) -> None:
    check(incoming(payload, topic=topic))
    for response_topic in REPLY_TOPICS:
        check(incoming(payload, topic=topic, response_topic=response_topic, correlation=b"c"))


def test_a_hundred_thousand_damaged_requests_are_each_a_request_or_a_refusal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    maker = Maker(SEED)
    outcomes: Counter[str] = Counter()
    broken: dict[str, Incoming] = {}
    started_s = time.perf_counter()
    for _ in range(NUMBER):
        message = maker.message()
        try:
            outcomes[check(message)] += 1
        except Exception as error:
            broken.setdefault(f"{type(error).__name__}: {str(error).splitlines()[0]}", message)
    rate = NUMBER / (time.perf_counter() - started_s)
    counts = ", ".join(f"{number} {name}" for name, number in outcomes.most_common())
    with capsys.disabled():
        sys.stdout.write(f"\nfuzz of decode: {NUMBER} inputs, {rate:.0f} inputs/s: {counts}\n")
    assert not broken, "\n".join(f"{why}\n  {message}" for why, message in broken.items())
    wanted = {ErrorCode.BAD_REQUEST, ErrorCode.NOT_UTF8, ErrorCode.TOO_LARGE, ErrorCode.UNSUPPORTED_TYPE}
    wanted |= {ErrorCode.BAD_REPLY_TOPIC, ErrorCode.EXPIRED}
    for outcome in {"request (text)", "request (json)", *map(str, wanted)}:
        assert outcomes[outcome] >= NUMBER // 200, f"the inputs hardly reach {outcome}"


COMPRESSED = b"\x1f\x8b\x08\x00" + b"\x00" * 30


@pytest.mark.parametrize("content_type", ["application/gzip", "application/zlib", "application/json+gzip", "gzip"])
def test_compressed_content_is_not_unpacked(content_type: str) -> None:
    item = decode(incoming(COMPRESSED, content_type=content_type), TOPICS, LIMITS, RequestId("r1"), START_MS)
    assert isinstance(item, Refused) and item.code is ErrorCode.UNSUPPORTED_TYPE
    assert item.reply is not None


@pytest.mark.parametrize("first", ["true", "false"])
def test_key_given_twice_is_refused(first: str) -> None:
    second = "false" if first == "true" else "true"
    payload = f'{{"private": {first}, "question": "a", "id": "7", "private": {second}}}'
    item = decode(incoming(payload), TOPICS, LIMITS, RequestId("r1"), START_MS)
    assert isinstance(item, Refused) and item.code is ErrorCode.BAD_REQUEST
    assert "private" in item.message


# --- what costs more than it weighs -----------------------------------------------------------------

LARGE = replace(LIMITS, max_payload_bytes=65_536, max_json_depth=32)
LARGEST_CPU_S = 0.025  # for 64 KiB; json alone takes 1 to 8 ms


def _object(*members: bytes) -> bytes:
    """An object of at most 64 KiB with as many of the members as fit."""
    payload = b'{"question": "x", ' + b", ".join(members)
    return payload if len(payload) < 65_536 else payload[: payload.rfind(b",", 0, 65_000)] + b"}"


def _shuffled_keys() -> list[bytes]:
    """Keys of the letters of "private", yet unlike it: what a search for likely misspellings looks at longest."""
    words = map("".join, itertools.permutations("etavirpq", 8))
    return [f'"{word}": 1'.encode() for word in itertools.islice(words, 6000)]


@pytest.mark.parametrize(
    "payload",
    [
        _object(*(f'"{number:x}": 1'.encode() for number in range(9000))),
        _object(*_shuffled_keys()),
        _object(*(f'"{number:x}": 1'.encode() for number in range(6000)), b'"last": 1, "last": 2}'),
        _object(b'"' + b"a" * 65_000 + b'": 1}'),
        _object(b'"a": [' + b"[]," * 20_000 + b"[]]}"),
        _object(b'"a": ' + b"[" * 32_000 + b"]" * 32_000 + b"}"),
        _object(b'"a": "' + b"[{" * 32_000 + b'"}'),
        _object(b'"id": ' + b"9" * 65_000 + b"}"),
        _object(b'"ttl_s": 1e' + b"9" * 60_000 + b"}"),
        _object(b'"id": "' + b"\\ud800" * 10_000 + b'"}'),
        b'{"messages": [' + b", ".join([b'{"role": "user", "content": ""}'] * 1900) + b"]}",
        b"\0" * 65_536,
    ],
    ids=[
        "keys",
        "near",
        "twins",
        "key",
        "wide",
        "deep",
        "brackets",
        "digits",
        "exponent",
        "surrogates",
        "messages",
        "nul",
    ],
)
def test_no_payload_holds_up_the_others(payload: bytes) -> None:
    assert len(payload) <= LARGE.max_payload_bytes
    message = incoming(payload)

    def cpu_s() -> float:
        started_s = time.thread_time()
        assert isinstance(decode(message, TOPICS, LARGE, RequestId("r1"), START_MS), Request | Refused)
        return time.thread_time() - started_s

    assert min(cpu_s() for _ in range(5)) <= LARGEST_CPU_S
