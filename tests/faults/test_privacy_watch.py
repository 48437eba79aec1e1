"""Private questions and every failure together: nothing private leaves for where it may not go.

`tools/privacy_watch --requests 10000` is the same for longer.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path
from random import Random

import pytest
from watching.marks import DETECTED, MARKED, OPEN, VALUES, count_bytes, questions, signs
from watching.report import Report
from watching.taped_tier import TapedTier
from watching.trace import UNKNOWN, Sent
from watching.watch import NAMES, run

from mqrouter.core.personal_data import Kind, find

REQUESTS = 300
SEED = int(os.environ.get("MQROUTER_WATCH_SEED", "1"))


@pytest.mark.real_model
def test_no_byte_of_a_private_question_is_seen_where_it_may_not_go(tmp_path: Path) -> None:
    found = run(tmp_path, REQUESTS, SEED, lambda _: None, per_fault=REQUESTS // (2 * len(NAMES)))
    assert found.is_ok, found.as_text()
    assert found.open_seen, "the watch saw nothing at all"
    assert found.restored, found.as_text()
    assert found.outcomes["private_unanswerable"] and found.outcomes["den"], found.as_text()


def test_questions_are_the_same_for_the_same_seed_and_no_other() -> None:
    first, again, other = (list(questions(50, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_every_private_value_is_one_that_the_daemon_can_find() -> None:
    with_data = [question for question in questions(500, 1) if question.value is not None]
    for question in with_data:
        text = json.loads(question.payload)
        (found,) = find(json.dumps(text, ensure_ascii=False), frozenset(Kind) - {Kind.NAME})
        assert str(found.kind) in VALUES


@pytest.mark.parametrize("sign", signs())
def test_sign_is_found_in_every_form(sign: str) -> None:
    chance = Random(3)
    for _ in range(20):
        text = ("x" * chance.randrange(9) + sign + "tail" * 3).encode()
        assert count_bytes(text, signs()) == len(sign)
        for form in (base64.b64encode(text), text.hex().encode(), text.decode().encode("utf-16-le")):
            assert count_bytes(form, signs()) > 0
    assert count_bytes(f"{OPEN} how are the cows".encode() * 50, signs()) == 0


def test_who_redacts_may_see_what_stands_around_the_data_and_nothing_else() -> None:
    assert count_bytes(DETECTED.encode(), signs(is_redacting=True)) == 0
    assert count_bytes(MARKED.encode(), signs(is_redacting=True)) == len(MARKED)


def test_tape_keeps_what_a_tier_is_sent() -> None:
    tier = TapedTier("t", 1).start()
    try:
        with socket.create_connection(("127.0.0.1", tier.port), 10.0) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nX: zqmail\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert b"X: zqmail" in tier.tape
    finally:
        tier.close()


TRACE = rb"""7 connect(9<TCP:[65188]>, {sa_family=AF_INET, sin_port=htons(1883), sin_addr=inet_addr("127.0.0.1")}, 16)
7 sendto(9<TCP:[0.0.0.0:34235]>, "who owes zqmarked1", 18, 0, NULL, 0) = 18
7 sendto(12<TCP:[127.0.0.1:4->127.0.0.1:8080]>, "zqdetect", 8, 0, NULL, 0 <unfinished ...>
7 sendto(13<UDP:[5]>, "zqmail", 6, 0, NULL, 0) = 6
7 write(3<UNIX-STREAM:[5->6]>, "zqmarked", 8) = 8
7 write(2</var/log/x>, "zqmarked", 8) = 8
"""


def test_trace_tells_what_went_to_which_port(tmp_path: Path) -> None:
    log = tmp_path / "trace"
    log.write_bytes(TRACE)
    sent = Sent()
    sent.read(log)
    assert dict(sent.private) == {1883: 8, 8080: 8, UNKNOWN: 6}
    assert sent.strangers({1883, 8080}) == {UNKNOWN: 1}


def test_report_says_what_was_seen_and_how_to_see_it_again() -> None:
    counts: dict[str, int] = {"hub": 0}
    good = Report(10, 7, 9, counts, counts, 1, counts, 5, counts, [])
    bad = Report(10, 7, 9, counts, counts, 1, counts, 5, {"hub": 12}, [])
    assert good.is_ok and "again" not in good.as_text()
    assert not bad.is_ok and bad.as_text().endswith("again: tools/privacy_watch --requests 10 --seed 7")
    assert json.loads(bad.as_json())["ok"] is False
