"""The oracle itself: it passes what keeps the promises, and names whatever does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from broker_log import BrokerLog, read_log
from harness import Message
from judgement import Judgement, Sent
from ledger import Ledger, Row, StoredAnswer

from mqrouter.core.states import State

QUESTIONS = [
    Sent(n, f"ask/d/q{n}", f"frost {n}?", "me/in", f"c{n}".encode(), True, f"frost {n}?".encode()) for n in range(2)
]
LIFE = ("received", "pending", "leased", "answered", "delivered")


@dataclass
class Evidence:
    """Two questions that were asked, accepted, answered and heard; a test spoils one thing."""

    rows: list[Row] = field(default_factory=lambda: [_row(sent) for sent in QUESTIONS])
    answers: list[Message] = field(default_factory=lambda: [_message(sent) for sent in QUESTIONS])
    damage: str | None = None
    log: BrokerLog = field(
        default_factory=lambda: BrokerLog("d", [sent.topic for sent in QUESTIONS], {sent.topic for sent in QUESTIONS})
    )

    def offenders(self, **allowed: bool) -> list[str]:
        flags = dict.fromkeys(("may_be_open", "broker_lost_sessions", "rows_may_be_missing"), False) | allowed
        ledger = Ledger(tuple(self.rows), self.damage)
        judgement = Judgement(
            QUESTIONS, self.answers, self.log, ledger, lambda sent: f"echo: {sent.text}", is_running=True
        )
        return list(judgement.offenders(**flags))


def _row(sent: Sent) -> Row:
    payload = f"echo: {sent.text}".encode()
    return Row(
        id=f"id{sent.number}",
        client_id=f"q{sent.number}",
        state=State.DELIVERED,
        reason=None,
        topic=sent.topic,
        reply_topic=sent.reply_topic,
        correlation=sent.correlation,
        payload=sent.payload or b"",
        events=LIFE,
        answer=StoredAnswer(sent.reply_topic, sent.correlation, payload, "done"),
    )


def _message(sent: Sent) -> Message:
    payload = f"echo: {sent.text}".encode()
    return Message(sent.reply_topic, payload, 1, False, sent.correlation, properties={"mq-id": f"id{sent.number}"})


def _lose_a_row(evidence: Evidence) -> None:
    del evidence.rows[1], evidence.answers[1]


def _swap_correlations(evidence: Evidence) -> None:
    one, two = evidence.answers
    evidence.answers = [replace(one, correlation=two.correlation), replace(two, correlation=one.correlation)]


def _answer_twice_in_other_words(evidence: Evidence) -> None:
    evidence.answers.append(replace(evidence.answers[0], payload=b"echo: something else"))


def _answer_a_stranger(evidence: Evidence) -> None:
    evidence.answers.append(replace(evidence.answers[0], correlation=b"stranger"))


def _lose_an_answer(evidence: Evidence) -> None:
    del evidence.answers[0]


def _retain_an_answer(evidence: Evidence) -> None:
    evidence.answers[0] = replace(evidence.answers[0], is_retained=True)


def _move_backwards(evidence: Evidence) -> None:
    events = ("received", "pending", "answered", "leased", "answered", "delivered")
    evidence.rows[0] = replace(evidence.rows[0], events=events)


def _forget_the_last_event(evidence: Evidence) -> None:
    evidence.rows[0] = replace(evidence.rows[0], events=LIFE[:-1])


def _end_without_an_answer(evidence: Evidence) -> None:
    evidence.rows[0] = replace(evidence.rows[0], answer=None)


def _address_another(evidence: Evidence) -> None:
    evidence.rows[0] = replace(evidence.rows[0], answer=evidence.rows[1].answer)


def _die_without_a_reason(evidence: Evidence) -> None:
    evidence.rows[0] = replace(evidence.rows[0], state=State.DEAD, events=("dead", "delivered"))


def _fail_for_another_reason(evidence: Evidence) -> None:
    error = b"error internal: no"
    answer = StoredAnswer("me/in", QUESTIONS[0].correlation, error, "done")
    evidence.rows[0] = replace(evidence.rows[0], reason="expired", answer=answer)
    evidence.answers[0] = replace(evidence.answers[0], payload=error)


def _store_another_question(evidence: Evidence) -> None:
    evidence.rows[0] = replace(evidence.rows[0], payload=b"frost 7?")


def _damage(evidence: Evidence) -> None:
    evidence.damage = "row 3 missing from index"


def _drop_at_the_broker(evidence: Evidence) -> None:
    evidence.log.dropping_for.add("d")


def _provisional(evidence: Evidence, text: bytes) -> Message:
    properties = {**evidence.answers[0].properties, "mq-status": "provisional"}
    return replace(evidence.answers[0], payload=text, properties=properties)


def _change_the_provisional_answer(evidence: Evidence) -> None:
    evidence.answers += [_provisional(evidence, b"maybe"), _provisional(evidence, b"maybe not")]


def _keep_the_provisional_answer(evidence: Evidence) -> None:
    answer = evidence.rows[0].answer
    assert answer is not None
    evidence.rows[0] = replace(evidence.rows[0], answer=replace(answer, is_provisional=True))


SPOILED: list[tuple[Callable[[Evidence], None], str]] = [
    (_lose_a_row, "was acknowledged and has no row"),
    (_lose_a_row, "was taken by the broker and has no row"),
    (_swap_correlations, "got the answer of another request"),
    (_swap_correlations, "was answered 'echo: frost 1?'"),
    (_answer_twice_in_other_words, "was answered in 2 ways"),
    (_answer_twice_in_other_words, "words no row holds"),
    (_answer_a_stranger, "an answer to no question"),
    (_lose_an_answer, "nobody heard it"),
    (_retain_an_answer, "a retained answer"),
    (_move_backwards, "moved from answered to leased"),
    (_forget_the_last_event, "its history ends with answered"),
    (_end_without_an_answer, "has no answer"),
    (_address_another, "has an answer for"),
    (_die_without_a_reason, "without a reason"),
    (_fail_for_another_reason, "got the error internal"),
    (_store_another_question, "holds what was sent"),
    (_damage, "is damaged"),
    (_drop_at_the_broker, "dropped messages"),
    (_change_the_provisional_answer, "more than one provisional answer"),
    (_keep_the_provisional_answer, "has a provisional answer only"),
]


def test_kept_promises_offend_nobody() -> None:
    evidence = Evidence()
    evidence.answers.append(evidence.answers[0])  # a duplicate
    evidence.answers += 2 * [_provisional(evidence, b"maybe")]

    assert evidence.offenders() == []


@pytest.mark.parametrize(("spoil", "offence"), SPOILED, ids=lambda value: getattr(value, "__name__", value))
def test_broken_promise_is_named(spoil: Callable[[Evidence], None], offence: str) -> None:
    evidence = Evidence()
    spoil(evidence)

    assert any(offence in offender for offender in evidence.offenders())


def test_open_request_offends_unless_it_may_be_open() -> None:
    evidence = Evidence()
    evidence.rows[0] = replace(evidence.rows[0], state=State.PENDING, events=LIFE[:2], answer=None)
    del evidence.answers[0]

    assert [offender for offender in evidence.offenders() if "is still pending" in offender]
    assert evidence.offenders(may_be_open=True) == []


@dataclass
class _Life:
    lines: list[str]


def test_log_tells_who_acknowledged_what() -> None:
    lines = [
        "1: Received PUBLISH from early (d0, q1, r0, m1, 'ask/d/early', ... (5 bytes))",
        "1: Sending PUBACK to early (m1, rc0)",
        "1: Received SUBSCRIBE from router",
        "1: Received PUBLISH from asker (d0, q1, r0, m7, 'ask/d/it's', ... (5 bytes))",
        "1: Sending PUBLISH to router (d0, q1, r0, m1, 'ask/d/it's', ... (5 bytes))",
        "1: Sending PUBACK to asker (m7, rc0)",
        "1: Received PUBACK from router (Mid: 1, RC:0)",
        "1: Sending PUBLISH to router (d0, q1, r0, m2, 'ask/d/unacknowledged', ... (5 bytes))",
        "1: Received PUBLISH from router (d0, q1, r0, m3, 'me/in', ... (5 bytes))",
    ]

    log = read_log([_Life(lines)], "router")

    assert (log.acknowledged, log.taken, log.published) == (["ask/d/it's"], {"ask/d/it's"}, ["me/in"])
