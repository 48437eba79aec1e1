"""Input that attacks: repeated, reused, confused, oversized, broken, aimed elsewhere, and far too much of it."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Behaviour, Gateway, Message, Mosquitto, Requester, Site, StubTier, poll
from ledger import Row
from oracle import Oracle, Sent

from mqrouter.core.states import ACTIVE, State

pytestmark = pytest.mark.real_model

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"
MAX_BYTES = 4096
LIMITS = f"[limits]\nmax_payload_bytes = {MAX_BYTES}\nmax_json_depth = 8\ndevice_rate_per_minute = 1000000\n"
ONE_AT_A_TIME = "[tiers.hub]\nconcurrency = 1\n"


@contextmanager
def attacked_site(folder: Path, text: str = "") -> Iterator[tuple[Site, Oracle]]:
    """A running site whose broker drops nothing, and the oracle."""
    broker = Mosquitto(folder / "broker", extra=["max_queued_messages 0"]).start()
    tier = StubTier().start()
    gateway = Gateway(folder / "gateway", broker.port, tier.url, text=LIMITS + text)
    try:
        gateway.start()
        with Oracle(broker, gateway) as oracle:
            yield Site(broker, tier, gateway), oracle
        tier.release()
        gateway.close()
    finally:
        if gateway.process is not None and gateway.process.is_running:
            gateway.kill()
        tier.close()
        broker.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with attacked_site(tmp_path_factory.mktemp("attacked")) as (site, _):
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    """The shared site, with a tier that answers at once."""
    shared.tier.reset()
    if not shared.gateway.log.is_running:
        shared.gateway.start()
    return shared


@pytest.fixture
def oracle(site: Site) -> Iterator[Oracle]:
    """Hears what is answered from now on; judges all there is in the database."""
    with Oracle(site.broker, site.gateway) as oracle:
        yield oracle


def send(oracle: Oracle, sent: Sent, *, version: int = 5, reply_to: str | None = None) -> None:
    """Publishes a question once more, or one made by hand, and waits for the broker only."""
    assert sent.payload is not None
    oracle.asker(version).publish(sent.topic, sent.payload, reply_to=reply_to, correlation=sent.correlation)


def send_again(oracle: Oracle, sent: Sent, number: int) -> None:
    """Publishes the very same question again; the last PUBACK is waited for."""
    assert sent.payload is not None
    version = 4 if sent.correlation is None else 5
    reply_to = sent.reply_topic if version == 5 else None
    infos = [
        oracle.asker(version).send(sent.topic, sent.payload, reply_to=reply_to, correlation=sent.correlation)
        for _ in range(number)
    ]
    infos[-1].wait_for_publish(30.0)
    assert infos[-1].is_published()


def counted(gateway: Gateway) -> Counter[str]:
    """What became of all that came in since the daemon's start, by its own account."""
    return Counter(gateway.status()["accepted"])


def wait_until_counted(gateway: Gateway, **wanted: int) -> None:
    """The daemon has counted at least these."""

    def found() -> bool | None:
        return all(counted(gateway)[name] >= number for name, number in wanted.items()) or None

    poll(found, lambda: f"{counted(gateway)}, not {wanted}")


def rows_of(oracle: Oracle, *sent: Sent) -> list[Row]:
    topics = {one.topic for one in sent}
    return [row for row in oracle.ledger().rows if row.topic in topics]


def reasons_of(oracle: Oracle, sent: Sent) -> Counter[str | None]:
    return Counter(row.reason for row in rows_of(oracle, sent))


def codes_of(oracle: Oracle, sent: Sent) -> list[str | None]:
    return [message.error_code for message in oracle.answers_to(sent)]


def wait_until_delivered(oracle: Oracle, asked: Iterable[Sent]) -> None:
    """Waits until the daemon has noted that the broker took every answer to these."""
    rows = rows_of(oracle, *asked)

    def are_delivered() -> bool | None:
        rows[:] = rows_of(oracle, *asked)
        return all(row.answer is not None and row.answer.state == "done" for row in rows) or None

    poll(are_delivered, lambda: str(Counter(row.answer and row.answer.state for row in rows)))


# --- asked again and again ----------------------------------------------------------------------------


def test_fault_29_question_asked_a_thousand_times_across_restarts_costs_one_call(site: Site, oracle: Oracle) -> None:
    site.tier.hold()
    by_correlation = oracle.ask(1, device="again")[0]
    by_id = oracle.ask(1, device="again", version=4, form="json")[0]
    site.tier.wait_for_calls("frost", 2)
    for sent in (by_correlation, by_id):
        send_again(oracle, sent, 333)
    wait_until_counted(site.gateway, absorbed=666)
    site.tier.release()
    oracle.wait_for_answers()
    for end in (site.gateway.stop, site.gateway.kill):
        end()
        site.gateway.start()
        for sent in (by_correlation, by_id):
            send_again(oracle, sent, 333)
        wait_until_counted(site.gateway, absorbed=666)
    calls = Counter(call.question for call in site.tier.calls)
    assert calls == {by_correlation.text: 1, by_id.text: 1}
    assert [len(rows_of(oracle, sent)) for sent in (by_correlation, by_id)] == [1, 1]
    oracle.extra["repeats"] = 6 * 333
    oracle.judge()


# --- one name for two questions -----------------------------------------------------------------------


def reused(oracle: Oracle, sent: Sent) -> Sent:
    """Asks something else under the name of a question; notes it as a question of its own."""
    text = f"something else than {sent.text}"
    payload = text if sent.correlation else json.dumps({"question": text, "id": sent.topic.rpartition("/")[2]})
    other = Sent(-sent.number, sent.topic, text, sent.reply_topic, sent.correlation, False, payload.encode())
    oracle.note(other)
    send_again(oracle, other, 1)
    return other


def test_fault_30_reused_correlation_never_gets_the_old_answer(site: Site, oracle: Oracle) -> None:
    site.tier.hold()
    asked = [*oracle.ask(2, device="reuse"), *oracle.ask(2, device="reuse", version=4, form="json")]
    before = counted(site.gateway)["reused"]
    others = [reused(oracle, sent) for sent in asked]  # while the first waits
    wait_until_counted(site.gateway, reused=before + 4)
    site.tier.release()
    poll(lambda: all(None in codes_of(oracle, sent) for sent in asked) or None, lambda: "the questions' own answers")
    others += [reused(oracle, sent) for sent in asked]  # when it is answered
    wait_until_counted(site.gateway, reused=before + 8)
    wait_until_delivered(oracle, asked)  # or the next life says again what this one did not hear the end of
    site.gateway.kill()
    site.gateway.start()
    others += [reused(oracle, sent) for sent in asked]  # in another life
    wait_until_counted(site.gateway, reused=4)
    # By rows, not by what is heard: what was under way at the kill may come twice.
    reasons = {None: 1, "correlation_reused": 3}
    poll(lambda: all(reasons_of(oracle, sent) == reasons for sent in asked) or None, lambda: "the rows of all three")
    wait_until_delivered(oracle, asked)
    for sent in asked:
        assert codes_of(oracle, sent).count(None) == 1, "the old answer came again"
        assert codes_of(oracle, sent).count("correlation_reused") >= 3
    assert not [call for call in site.tier.calls if "something else" in call.question]
    oracle.extra["reused"] = len(others)
    oracle.judge()


PAIRS = 60


def test_fault_31_equal_correlations_of_two_requesters_do_not_cross(site: Site, oracle: Oracle) -> None:
    """Equal bytes, from the same device topic with other reply topics, and from other devices with equal ids."""
    replies = [f"{ANSWER}/twin/a", f"{ANSWER}/twin/b"]
    with Requester(site.broker.port) as first, Requester(site.broker.port) as second:
        for number in range(PAIRS):
            for asker, reply_to in zip((first, second), replies, strict=True):
                text = f"frost in {reply_to[-1]}{number}?"
                sent = Sent(number, f"{ASK}/twin", text, reply_to, number.to_bytes(2, "big"), True)
                oracle.note(sent)
                asker.publish(sent.topic, text, reply_to=reply_to, correlation=sent.correlation)
    for number in range(PAIRS):
        for device in ("left", "right"):
            text = f"is {device} frozen at {number}?"
            payload = json.dumps({"question": text, "id": number}).encode()
            oracle.note(Sent(number, f"{ASK}/{device}", text, f"{ANSWER}/{device}", None, True, payload))
            oracle.asker(4).publish(f"{ASK}/{device}", payload)
    poll(lambda: len(oracle.answers) >= 4 * PAIRS or None, lambda: f"{len(oracle.answers)} answers")
    heard = {name: [message for message in oracle.answers if message.topic == name] for name in replies}
    for name, messages in heard.items():
        wanted = {number.to_bytes(2, "big"): f"echo: frost in {name[-1]}{number}?" for number in range(PAIRS)}
        assert {message.correlation: message.text for message in messages} == wanted
        assert len(messages) == PAIRS
    for device in ("left", "right"):
        bodies = [message.json for message in oracle.answers if message.topic == f"{ANSWER}/{device}"]
        told = {body["id"]: body["answer"] for body in bodies}
        assert told == {str(number): f"echo: is {device} frozen at {number}?" for number in range(PAIRS)}
        assert len(bodies) == PAIRS
    oracle.judge()


# --- too much, and broken -----------------------------------------------------------------------------


def sized(form: str, size: int) -> bytes:
    """A question of exactly so many bytes."""
    head, tail = (b"", b"") if form == "text" else (b'{"id": "size", "question": "', b'"}')
    return head + (b"frost? " * (1 + size // 7))[: size - len(head) - len(tail)] + tail


@pytest.mark.parametrize("form", ["text", "json"])
def test_fault_32_payload_above_the_limit_is_refused_and_the_daemon_lives(
    site: Site, oracle: Oracle, form: str
) -> None:
    site.tier.script = lambda _call: Behaviour(text="short")  # an echo would be found repetitive
    oracle.expected_answer = lambda _sent: "short"
    sizes = {"limit": MAX_BYTES, "above": MAX_BYTES + 1, **{f"huge{n}": 10_000_000 for n in range(4)}}
    for name, size in sizes.items():
        payload = sized(form, size)
        assert len(payload) == size
        text = str(json.loads(payload)["question"]) if form == "json" else payload.decode()
        topic, reply_topic = (f"{tree}/size/{form}-{name}" for tree in (ASK, ANSWER))
        is_valid = size <= MAX_BYTES
        sent = Sent(0, topic, text, reply_topic, name.encode(), is_valid, payload if is_valid else None)
        oracle.note(sent)
        oracle.asker().publish(topic, payload, correlation=sent.correlation)
    oracle.wait_for_answers()
    codes = {sent.topic.rpartition("-")[2]: codes_of(oracle, sent) for sent in oracle.sent}
    assert codes == {name: [None if name == "limit" else "too_large"] for name in sizes}
    assert all(len(row.payload) <= MAX_BYTES for row in rows_of(oracle, *oracle.sent))
    peak = psutil.Process(site.gateway.log.pid).memory_info().rss
    oracle.extra["resident_mb"] = peak >> 20
    assert peak < 400e6
    oracle.judge()


NUMBER_BROKEN = 10_000


def broken_payloads(number: int, seed: int = 33) -> Iterator[bytes]:
    """Bad UTF-8, bad JSON, deep nesting, NUL, nothing: none of them a question."""
    draw = random.Random(seed)
    makers: list[Callable[[], bytes]] = [
        lambda: b"frost " + bytes([draw.randrange(0x80, 0xC0)]) + draw.randbytes(3),
        lambda: b'{"question": "' + draw.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80"]) + b'"}',
        lambda: b'{"question": "frost?", ' + draw.choice([b"", b"}", b'"id": }', b"'x': 1}", b'"ttl_s": NaN}']),
        lambda: b'{"question": "frost?", "x": ' + b"[" * draw.randint(9, 1000),
        lambda: b'{"x":' * draw.randint(9, 500) + b"1" + b"}" * 9,
        lambda: b"\0" * draw.randint(1, 20),
        lambda: b"",
        lambda: draw.choice([b" ", b"\r\n", b"{}", b'{"question": 7}', b'{"question": "\\ud800"}']),
        lambda: b'{"question": "frost?", "id": ' + b"9" * draw.randint(129, 3000) + b"}",
    ]
    for position in range(number):
        yield makers[position % len(makers)]()


def test_fault_33_ten_thousand_broken_payloads_are_rows_and_error_answers(tmp_path: Path) -> None:
    with attacked_site(tmp_path) as (site, oracle):
        infos = []
        for number, payload in enumerate(broken_payloads(NUMBER_BROKEN)):
            topic, reply_topic = (f"{tree}/broken{number % 7}/{number}" for tree in (ASK, ANSWER))
            version = 5 if number % 2 else 4
            correlation = number.to_bytes(2, "big") if version == 5 else None
            oracle.note(Sent(number, topic, "", reply_topic, correlation, False, payload))
            infos.append(oracle.asker(version).send(topic, payload, correlation=correlation))
        for info in infos:
            info.wait_for_publish(60.0)
        oracle.wait_for_answers()
        good = oracle.ask(4)
        oracle.wait_for_answers(good)
        rows = Counter(row.reason for row in oracle.ledger().rows if row.state is State.DEAD)
        assert set(rows) == {"bad_request", "not_utf8"} and rows.total() == NUMBER_BROKEN
        assert counted(site.gateway)["refused"] == NUMBER_BROKEN
        assert len(site.tier.calls) == len(good)
        assert len(oracle.answers) == NUMBER_BROKEN + len(good), "an answer came twice"
        oracle.extra |= {str(reason): number for reason, number in rows.items()}
        oracle.judge()


# --- aimed elsewhere ----------------------------------------------------------------------------------

AIMED = [
    *("replies/+", "+/me", "replies/#", "#", "replies/a+b", "replies/c#"),
    *("$SYS/broker/version", "$share/group/replies", "$queue/replies"),
    *(f"{ASK}/aimed", f"{ASK}/other/7", ASK, f"{ANSWER}/other", f"{ANSWER}/other/7"),
    *(f"mqrouter/farm/{name}" for name in ("status", "info", "stats", "event/decision", "cmd/pause")),
]


def _is_report(message: Message) -> bool:
    """What the gateway tells of itself whenever it changes, and now and then; no answer says how many wait."""
    return message.topic == "mqrouter/farm/stats" and "queue" in message.json


def test_fault_34_reply_topic_aimed_elsewhere_is_refused_and_nothing_goes_there(site: Site, oracle: Oracle) -> None:
    known = len(oracle.ledger().rows)
    published = len(oracle.log().published)
    with Requester(site.broker.port) as bystander:
        bystander.subscribe("#")
        for number, reply_to in enumerate(AIMED):
            topic, own = f"{ASK}/aimed/{number}", f"{ANSWER}/aimed/{number}"
            sent = Sent(number, topic, f"frost {number}?", own, b"c%d" % number, False, f"frost {number}?".encode())
            oracle.note(sent)
            send(oracle, sent, reply_to=reply_to)
        oracle.wait_for_answers()
        assert {code for sent in oracle.sent for code in codes_of(oracle, sent)} == {"bad_reply_topic"}
        good = oracle.ask(2, device="aimed")
        oracle.wait_for_answers(good)
        bystander.publish("fence", "all before this was heard")
        bystander.answer_on("fence")
        asked = {"fence", *(sent.topic for sent in oracle.sent)}
        heard = [m for m in bystander.messages if m.topic not in asked and not m.is_retained]
        stray = [m.topic for m in heard if not _is_report(m)]
        assert set(stray) == {sent.reply_topic for sent in oracle.sent}
        assert len(stray) == len(AIMED) + len(good)
    assert len(oracle.ledger().rows) == known + len(AIMED) + len(good), "an answer became a question"
    assert len(oracle.log().published) == published + len(AIMED) + len(good)
    assert len(site.tier.calls) == len(good)
    oracle.extra["aimed"] = len(AIMED)
    oracle.judge()


DEVICES = ["dé", "\u202egnip", "d1\u200b", "\uff44\uff11", "{device}", "{prefix}", "..", " ", "%2B", "x" * 2000, "$SYS"]


def test_device_and_id_levels_lead_nowhere_but_to_their_own_answer_topic(site: Site, oracle: Oracle) -> None:
    for number, device in enumerate(DEVICES):
        for more in ("", "/7", "/../../status", "//", f"/{ASK}/x"):
            topic = f"{ASK}/{device}{more}"
            reply_topic = f"{ANSWER}/{device}{more}"
            text = f"frost {number} {len(more)}?"
            sent = Sent(number, topic, text, reply_topic, text.encode(), True, text.encode())
            oracle.note(sent)
            send(oracle, sent)
    oracle.wait_for_answers()
    assert {sent.topic: codes_of(oracle, sent) for sent in oracle.sent} == {sent.topic: [None] for sent in oracle.sent}
    oracle.judge()


# --- far too much of it -------------------------------------------------------------------------------

CAP = 100


def queue_text(when_full: str, *, share: float = 1.0, cap: int = CAP) -> str:
    return (
        f'{ONE_AT_A_TIME}\n[queue]\nmax_requests = {cap}\nwhen_full = "{when_full}"\nmax_share_per_device = {share}\n'
    )


def most_at_once(oracle: Oracle) -> int:
    """Returns how many requests were open together at most, by the order of their histories."""
    with sqlite3.connect(f"file:{oracle.database}?mode=ro", uri=True) as db:
        events = db.execute("SELECT request, event FROM history ORDER BY seq").fetchall()
    is_open: set[int] = set()
    most = 0
    for request, event in events:
        if event in ACTIVE:
            is_open.add(request)
        elif event in set(State):
            is_open.discard(request)
        most = max(most, len(is_open))
    return most


def outcome(oracle: Oracle, asked: list[Sent]) -> list[str]:
    """Returns what each of them was told, in the order they were asked: "answer", or the code of its error."""
    return ["/".join(code or "answer" for code in codes_of(oracle, sent)) for sent in asked]


@pytest.mark.parametrize("when_full", ["reject", "drop_oldest", "drop_lowest"])
def test_fault_35_ten_times_the_cap_follows_the_declared_policy(tmp_path: Path, when_full: str) -> None:
    with attacked_site(tmp_path, queue_text(when_full)) as (site, oracle):
        site.tier.hold()
        at_tier = oracle.ask(1, form="json", priority=9)
        site.tier.wait_for_calls("frost")
        common = oracle.ask(5 * CAP - 1, form="json", priority=1)
        urgent = oracle.ask(5 * CAP, form="json", priority=5)
        for sent in (at_tier[0], at_tier[0]):
            send_again(oracle, sent, 5)
        oracle.note(Sent(0, f"{ASK}/blank/1", "", f"{ANSWER}/blank/1", None, False, b" "))
        send(oracle, oracle.sent[-1], version=4)
        wait_until_counted(site.gateway, absorbed=10)
        assert sum(site.gateway.status()["requests"].values()) == CAP
        site.tier.release()
        oracle.wait_for_answers()
        accepted = counted(site.gateway)
        told = outcome(oracle, common + urgent)
        room = CAP - 1  # one is at the tier
        wanted = {
            "reject": ["answer"] * room + ["queue_full"] * (10 * CAP - 1 - room),
            "drop_oldest": ["queue_full"] * (10 * CAP - 1 - room) + ["answer"] * room,
            "drop_lowest": ["queue_full"] * len(common) + ["answer"] * room + ["queue_full"] * (5 * CAP - room),
        }
        assert told == wanted[when_full]
        assert outcome(oracle, at_tier) == ["answer"]
        assert most_at_once(oracle) == CAP
        new = {"reject": CAP, "drop_oldest": 10 * CAP, "drop_lowest": CAP + room}[when_full]
        assert accepted["new"] == new and accepted["dropped"] == new - CAP
        assert accepted["refused"] == 10 * CAP - new + 1
        assert accepted["absorbed"] == 10 and accepted["reused"] == 0
        assert sum(accepted[name] for name in ("new", "absorbed", "reused", "refused")) == 10 * CAP + 11
        oracle.extra["queue_full"] = told.count("queue_full")
        oracle.judge()


def test_device_beyond_its_share_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    with attacked_site(tmp_path, queue_text("drop_oldest", share=0.3)) as (site, oracle):
        site.tier.hold()
        flood = oracle.ask(200, device="flood")
        others = [oracle.ask(1, device=f"quiet{number}")[0] for number in range(20)]
        wait_until_counted(site.gateway, new=50)
        site.tier.release()
        oracle.wait_for_answers()
        assert outcome(oracle, flood) == ["answer"] * 30 + ["queue_full"] * 170
        assert outcome(oracle, others) == ["answer"] * 20
        assert counted(site.gateway)["dropped"] == 0
        oracle.judge()


def wait_until_pending(oracle: Oracle, sent: Sent) -> None:
    def found() -> bool | None:
        with_topic = rows_of(oracle, sent)
        return bool(with_topic and with_topic[0].state is State.PENDING) or None

    poll(found, lambda: f"{sent.topic} is not pending: {rows_of(oracle, sent)}")


def served(site: Site) -> list[str]:
    return [call.question for call in site.tier.calls]


def asked_in_the_background(oracle: Oracle, number: int, **fields: Any) -> list[Sent]:
    """Asks, and waits for the last PUBACK alone."""
    return [*oracle.ask(number - 1, wait_for_puback=False, **fields), *oracle.ask(1, **fields)]


def test_fault_36_urgent_question_behind_ten_thousand_is_served_next(tmp_path: Path) -> None:
    with attacked_site(tmp_path, ONE_AT_A_TIME) as (site, oracle):
        site.tier.hold()
        first = oracle.ask(1)
        site.tier.wait_for_calls("frost")
        asked_in_the_background(oracle, 10_000)
        wait_until_counted(site.gateway, new=10_001)
        urgent = oracle.ask(1, form="json", priority=9)[0]
        wait_until_pending(oracle, urgent)
        waiting = sum(site.gateway.status()["requests"].values())
        site.tier.release()
        oracle.wait_for_answers([urgent])
        site.tier.wait_for_calls("frost", 2)
        assert served(site)[:2] == [first[0].text, urgent.text]
        site.gateway.stop()
        oracle.extra["waiting"] = waiting
        assert waiting >= 10_001
        oracle.judge(may_be_open=True)


def test_single_question_is_served_next_while_another_device_has_thousands_waiting(tmp_path: Path) -> None:
    with attacked_site(tmp_path, ONE_AT_A_TIME) as (site, oracle):
        site.tier.hold()
        oracle.ask(1, device="flood")
        site.tier.wait_for_calls("frost")
        asked_in_the_background(oracle, 3000, device="flood")
        quiet = [oracle.ask(1, device=name)[0] for name in ("gate", "pump", "gate")]
        for sent in quiet:
            wait_until_pending(oracle, sent)
        site.tier.release()
        oracle.wait_for_answers(quiet)
        order = served(site)
        turns = [order.index(sent.text) for sent in quiet]
        assert sorted(turns[:2]) == [1, 2], "the quiet devices' first questions are next"
        assert turns[2] <= 5, "and then one of each in turn"
        site.gateway.stop()
        oracle.extra["turns"] = turns
        oracle.judge(may_be_open=True)


# --- what people read ---------------------------------------------------------------------------------

FORGED = '{"event": "daemon.forged", "level": "error"}'
NASTY = f"\x1b[2J\x1b]0;owned\x07\r\n{FORGED}\n  answer:   forged\u202e\u2028\x9b31m"


def nasty_questions(oracle: Oracle) -> list[Sent]:
    """Questions whose every field tries to be more than text, some of them broken so that they are refused."""
    fields: list[dict[str, Any]] = [
        {"question": NASTY, "id": NASTY[:120]},
        {"question": "frost?", "id": "\x1b[2J", "session": "\n" + FORGED, "context": NASTY},
        {"question": "frost?", "id": "\n" + FORGED, "route": NASTY[:100]},
        {"question": "frost?", "id": "7\n  answer:   forged", "privat\x1b": True},
        {"question": 7, "id": FORGED},
    ]
    found = []
    for number, body in enumerate(fields):
        topic = f"{ASK}/gate code=ok {FORGED.replace('/', ' ')} \u202e\u2028/{number}"
        reply_topic = topic.replace(ASK, ANSWER)
        payload = json.dumps(body).encode()
        found.append(Sent(number, topic, str(body["question"]), reply_topic, b"n%d" % number, number < 2, payload))
        oracle.note(found[-1])
        send(oracle, found[-1])
    text = "frost?\n  answer:   forged"
    found.append(Sent(8, f"{ASK}/gate/8", text, f"{ANSWER}/gate/8", b"n8", True, text.encode()))
    oracle.note(found[-1])
    send(oracle, found[-1])
    content_type = f"text/x {FORGED} \u202e"
    found.append(Sent(9, f"{ASK}/gate/9", "", f"{ANSWER}/gate/9", b"n9", False, b"frost?"))
    oracle.note(found[-1])
    oracle.asker().publish(f"{ASK}/gate/9", b"frost?", correlation=b"n9", content_type=content_type)
    oracle.wait_for_answers(found)
    return found


def assert_harmless(text: str) -> None:
    bad = {char for char in text if not char.isprintable() and char != "\n"}
    assert not bad, f"{bad} in {text!r}"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_names_and_ids_write_neither_log_lines_nor_to_the_terminal(tmp_path: Path, log_format: str) -> None:
    with attacked_site(tmp_path) as (site, oracle):
        if log_format == "console":
            site.gateway.stop()
            site.gateway.write(site.broker.port, site.tier.url, LIMITS + '[log]\nformat = "console"\n')
            site.gateway.launch().log.wait_for_line(lambda line: "daemon.ready" in line)
        asked = nasty_questions(oracle)
        for line in site.gateway.log.lines:
            assert_harmless(line)
            assert json.loads(line)["event"] != "daemon.forged" if log_format == "json" else line[:4].isdigit(), line
        listed = site.gateway.cli("queue", "list", "--all").stdout
        assert_harmless(listed)
        assert len(listed.splitlines()) == 1 + len(oracle.ledger().rows), listed
        for row in rows_of(oracle, *asked):
            shown = site.gateway.cli("queue", "show", row.id).stdout
            assert_harmless(shown)
            assert len([line for line in shown.splitlines() if line.startswith("  answer:")]) == 1, shown
        assert_harmless(site.gateway.cli("status").stdout)
        oracle.judge()
