"""Every error code reaches its requester: at the right address, under its own correlation, in the right form."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Behaviour, Message, Requester, Site, running_site

from mqrouter.errors import ErrorCode

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

CONFIG = """
[mqtt]
response_topics = ["replies/#", "mqrouter/farm/ask/#", "$SYS/#"]

[limits]
max_payload_bytes = 2048
max_json_depth = 4
device_rate_per_minute = 20
"""
ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"


@dataclass(frozen=True)
class Case:
    """A question that must be answered with this code. Without `is_reply_allowed` it goes to the device's own topic."""

    code: str
    payload: bytes
    name: str
    content_type: str | None = None
    reply_to: str = "replies/in"
    is_reply_allowed: bool = True


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


REFUSED = [
    Case("bad_request", b"", "empty"),
    Case("bad_request", b" \r\n\0", "blank"),
    Case("bad_request", b"{", "half of a JSON object"),
    Case("bad_request", b'{"question": 7}', "number as question"),
    Case("bad_request", b'{"question": "a", "messages": []}', "question and messages"),
    Case("bad_request", b'{"question": "a", "ttl_s": NaN}', "NaN"),
    Case("bad_request", b'{"question": "a", "ttl_s": -1}', "negative time to live"),
    Case("bad_request", b'{"question": "a", "x": [[[[1]]]]}', "nested too deep"),
    Case("bad_request", b'["question"]', "JSON list", content_type="application/json"),
    Case("bad_request", b'{"question": "a", "id": ""}', "empty id"),
    Case("not_utf8", b"\xff\xfe\x00", "bytes"),
    Case("not_utf8", b'{"question": "\xe9"}', "Latin-1 in JSON"),
    Case("not_utf8", b'{"question": "half \\ud83c"}', "half of a pair"),
    Case("too_large", b"frost " * 400, "long text"),
    Case("too_large", b'{"question": "' + b"frost " * 400 + b'"}', "long JSON"),
    Case("unsupported_type", b"\x89PNG", "picture", content_type="image/png"),
    Case("bad_reply_topic", b"frost?", "wildcard +", reply_to="replies/+", is_reply_allowed=False),
    Case("bad_reply_topic", b"frost?", "wildcard #", reply_to="replies/#", is_reply_allowed=False),
    Case("bad_reply_topic", b"frost?", "$SYS", reply_to="$SYS/broker/version", is_reply_allowed=False),
    Case("bad_reply_topic", b"frost?", "request topic", reply_to=f"{ASK}/other", is_reply_allowed=False),
    Case("bad_reply_topic", b"frost?", "not on the list", reply_to="elsewhere/in", is_reply_allowed=False),
    Case("bad_reply_topic", b"frost?", "list's own parent", reply_to="repliesx/in", is_reply_allowed=False),
    Case("no_route", _json(question="frost?", route="nowhere"), "unknown route"),
    Case("private_unanswerable", _json(question="frost?", private=True), "private"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.code}: {case.name}")
def test_refused_question_gets_its_code(site: Site, case: Case) -> None:
    device_name = f"dev{REFUSED.index(case)}"
    correlation = b"\x00" + case.name.encode()
    own = f"{ANSWER}/{device_name}"
    with site.requester() as device:
        device.subscribe("replies/in", f"{ANSWER}/#")

        device.publish(
            f"{ASK}/{device_name}",
            case.payload,
            reply_to=case.reply_to,
            correlation=correlation,
            content_type=case.content_type,
        )

        answer = device.answer_on("replies/in" if case.is_reply_allowed else own)
        assert answer.error_code == case.code
        assert answer.correlation == correlation
        assert answer.properties["mq-status"] == case.code
        assert (answer.content_type == "application/json") == (case.payload[:1] in (b"{", b"["))
        assert len(device.messages) == 1
    assert site.tier.calls == []


OLD_CLIENT = [case for case in REFUSED if case.is_reply_allowed and case.content_type is None]


@pytest.mark.parametrize("case", OLD_CLIENT, ids=lambda case: f"{case.code}: {case.name}")
def test_refused_question_of_an_old_client_gets_its_code(site: Site, case: Case) -> None:
    end = f"old{REFUSED.index(case)}/id-7"
    with site.requester(4) as device:
        device.subscribe(f"{ANSWER}/{end}")

        device.publish(f"{ASK}/{end}", case.payload)

        answer = device.answer_on(f"{ANSWER}/{end}")
        assert answer.error_code == case.code
        if answer.payload.startswith(b"{") and case.name != "empty id":
            assert answer.json["id"] == "id-7"


def test_error_of_json_keeps_the_id_it_came_with(site: Site) -> None:
    with site.requester(4) as device:
        device.subscribe(f"{ANSWER}/who")

        device.publish(f"{ASK}/who", '{"id": "mine", "question": 7}')

        body = device.answer_on(f"{ANSWER}/who").json
        assert (body["id"], body["status"]) == ("mine", "error")
        assert body["error"] == {"code": "bad_request", "message": "question must be a string", "retryable": False}


def test_question_without_a_device_gets_no_answer_and_stops_nothing(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("replies/in", f"{ANSWER}/#")
        for topic in (ASK, f"{ASK}/"):
            device.publish(topic, "frost from nobody?")
        device.publish(ASK, "frost from nobody, but with an address?", reply_to="replies/in", correlation=b"n")

        assert device.answer_on("replies/in").error_code == "bad_request"
        assert len(device.messages) == 1


def test_other_question_under_a_used_correlation_is_refused(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("replies/in")
        device.publish(f"{ASK}/reuse", "frost, the first?", reply_to="replies/in", correlation=b"reused")
        assert device.answer_to(b"reused").error_code is None

        device.publish(f"{ASK}/reuse", "frost, another?", reply_to="replies/in", correlation=b"reused")

        assert device.wait_for_number(2)[1].error_code == "correlation_reused"
        assert site.tier.asked("frost, another?") == []


def test_device_that_asks_too_fast_is_told(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/chatty", f"{ANSWER}/calm")

        device.publish_at_once(f"{ASK}/chatty", [f"frost {number}?" for number in range(40)])
        device.publish(f"{ASK}/calm", "frost?")

        assert device.answer_on(f"{ANSWER}/calm").error_code is None
        codes = [message.error_code for message in device.wait_for_number(41) if message.topic.endswith("chatty")]
        assert set(codes) == {None, "rate_limited"}
        assert 20 <= codes.count(None) <= 22


def test_question_that_outlives_its_time_expires(site: Site) -> None:
    site.tier.hold()
    with site.requester() as device:
        device.subscribe("replies/in")

        device.publish(
            f"{ASK}/late", _json(question="frost too late?", ttl_s=0.3), reply_to="replies/in", correlation=b"l"
        )

        answer = device.answer_to(b"l")
        assert (answer.error_code, answer.correlation) == ("expired", b"l")


def test_message_expiry_is_the_time_to_live(site: Site) -> None:
    site.tier.hold()
    with site.requester() as device:
        device.subscribe("replies/in")

        device.publish(f"{ASK}/late", "frost in a second?", reply_to="replies/in", correlation=b"m", expiry_s=1)

        assert device.answer_to(b"m").error_code == "expired"


def test_question_every_tier_refuses_fails(site: Site) -> None:
    site.tier.script = lambda _call: Behaviour(status=400)
    with site.requester() as device:
        device.subscribe("replies/in")

        device.publish(f"{ASK}/probe", "frost refused?", reply_to="replies/in", correlation=b"u")

        assert device.answer_to(b"u").error_code == "upstream_failed"
        assert len(site.tier.asked("frost refused?")) == 1


def test_empty_answer_of_the_last_tier_fails(site: Site) -> None:
    site.tier.script = lambda _call: Behaviour(text="")
    with site.requester() as device:
        device.subscribe("replies/in")

        device.publish(f"{ASK}/probe", "frost unspoken?", reply_to="replies/in", correlation=b"v")

        assert device.answer_to(b"v").error_code == "upstream_failed"


def test_urgent_question_is_rejected_while_no_tier_is_up(site: Site) -> None:
    site.tier.stop()
    try:
        with site.requester() as device:
            device.subscribe("replies/in")
            for number in range(2):  # the first finds out, the second is told at once
                device.publish(
                    f"{ASK}/valve",
                    _json(question="stop!", route="urgent"),
                    reply_to="replies/in",
                    correlation=bytes([number]),
                )
                answer = device.wait_for_number(number + 1)[number]
                assert (answer.error_code, answer.json["error"]["retryable"]) == ("offline_rejected", True)
    finally:
        site.tier.start()
    site.gateway.wait_for_event("tier.breaker_changed", new="half_open")


@pytest.mark.parametrize("state", ["leased", "pending"])
def test_cancelled_question_is_told(site: Site, state: str) -> None:
    site.tier.script = lambda _call: Behaviour(status=503)
    if state == "leased":
        site.tier.hold()
    else:
        site.tier.stop()
    try:
        with site.requester() as device:
            device.subscribe("replies/in")
            question = f"frost, cancelled while {state}?"
            device.publish(f"{ASK}/{state}", question, reply_to="replies/in", correlation=state.encode())
            row = site.gateway.wait_for_request(device=state, state=state)

            result = site.gateway.cli("queue", "cancel", row["id"])

            told = f"{row['id']} is cancelled (it was {state})\n"
            assert (result.returncode, result.stdout) == (0, told), result.stderr
            answer = device.answer_to(state.encode())
            assert answer.error_code == "cancelled"
            site.tier.release()
            again = site.gateway.cli("queue", "cancel", row["id"])
            assert (again.returncode, again.stderr) == (1, f"nothing to cancel: {row['id']}: it is cancelled\n")
            assert len(device.messages) == 1
    finally:
        site.tier.release()
        if state == "pending":
            site.tier.start()
            site.tier.wait_for_probes(site.tier.probes + 1)


# --- limits that need a daemon of their own -----------------------------------------------------------


@pytest.fixture
def narrow_site(tmp_path: Path) -> Iterator[Site]:
    with running_site(
        tmp_path, text="[queue]\nmax_requests = 3\nmax_share_per_device = 1.0\n[tiers.hub]\nconcurrency = 1\n"
    ) as site:
        yield site


def _collect(device: Requester, number: int) -> list[str | None]:
    return [message.error_code for message in device.wait_for_number(number)]


def test_queue_that_is_full_says_so(narrow_site: Site) -> None:
    narrow_site.tier.hold()
    with narrow_site.requester() as device:
        device.subscribe("me/in")
        for number in range(3):
            device.publish(f"{ASK}/q{number}", f"frost {number}?", reply_to="me/in", correlation=bytes([number]))
            narrow_site.gateway.wait_for_request(device=f"q{number}", state="leased" if number == 0 else "pending")

        device.publish(f"{ASK}/q3", "frost 3?", reply_to="me/in", correlation=b"\x03")

        refused = device.answer_on("me/in")
        assert (refused.error_code, refused.correlation) == ("queue_full", b"\x03")
        narrow_site.tier.release()
        assert _collect(device, 4) == ["queue_full", None, None, None]


def test_question_nobody_claims_has_no_route(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site:
        text = site.gateway.config.read_text(encoding="utf-8")
        site.gateway.config.write_text(text.replace('to = ["hub"]', "to = []"), encoding="utf-8")
        site.gateway.start()
        with site.requester() as device:
            device.subscribe("me/in")

            device.publish(f"{ASK}/probe", "zxcvb qwerty", reply_to="me/in", correlation=b"r")
            device.publish(f"{ASK}/probe", "will there be frost tonight?", reply_to="me/in", correlation=b"f")

            answers = {message.correlation: message.error_code for message in device.wait_for_number(2)}
            assert answers == {b"r": "no_route", b"f": None}


def test_question_that_stops_the_daemon_three_times_is_buried(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, site.requester() as device:
        site.tier.hold()
        device.subscribe("me/in")
        device.publish(f"{ASK}/poison", "frost that kills?", reply_to="me/in", correlation=b"k")
        for life in range(3):
            site.tier.wait_for_calls("frost that kills?", life + 1)
            site.gateway.kill()
            site.gateway.start()

        answer: Message = device.answer_on("me/in")
        assert (answer.error_code, answer.correlation) == ("internal", b"k")
        assert site.gateway.requests()[0]["state"] == "dead"
        assert len({call.key for call in site.tier.calls}) == 1
        assert len(site.tier.calls) == 3


def test_the_table_is_complete() -> None:
    elsewhere = {"correlation_reused", "rate_limited", "expired", "upstream_failed", "offline_rejected", "cancelled"}
    elsewhere |= {"queue_full", "overloaded", "internal"}
    assert {case.code for case in REFUSED} | elsewhere == set(ErrorCode)
