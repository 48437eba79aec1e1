"""The oracle's judgement, and what can be said beyond it where the broker itself was killed now and then."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bad_tier import RawCall
from harness import Message
from ledger import Ledger, Row
from listener import key_of
from oracle import Counts, Oracle

from mqrouter.core.states import State
from soaking.broker_story import BrokerStory
from soaking.questions import MAX_BYTES, Asked

SETTLE_S = 60.0
MAX_HISTORIES = 10
QUESTION = re.compile(r"(?:something else than )*will there be frost [^?]*\?")


@dataclass(frozen=True)
class Verdict:
    """`offences` is empty where every promise was kept; `histories` tell what became of the rows they name."""

    counts: Counts
    offences: Sequence[str]
    histories: Sequence[str]
    lost_by_broker: Mapping[str, int]


def judge(
    oracle: Oracle,
    story: BrokerStory,
    asked: Sequence[Asked],
    untrusted_calls: Sequence[RawCall],
    others: Sequence[str],
) -> Verdict:
    """`others` are offences known already."""
    found = list(others)
    try:
        counts = oracle.judge(broker_lost_sessions=True, settle_s=SETTLE_S)
    except AssertionError as error:
        found += str(error).splitlines()
        counts = oracle.counted()
    ledger = oracle.ledger()
    evidence = _Evidence(oracle.answers, ledger, story, asked)
    found += evidence.offences()
    found += [f"a private question left the gateway: {call}" for call in _private_calls(asked, untrusted_calls)]
    return Verdict(counts, found, _histories(oracle.database, ledger.rows, found), evidence.lost_by_broker)


def _private_calls(asked: Sequence[Asked], calls: Sequence[RawCall]) -> Iterator[RawCall]:
    private = {one.sent.text for one in asked if one.is_private}
    return (call for call in calls if call.question in private)


class _Evidence:
    def __init__(self, answers: Sequence[Message], ledger: Ledger, story: BrokerStory, asked: Sequence[Asked]) -> None:
        self.lost_by_broker: Counter[str] = Counter()
        self._answers = answers
        self._rows = {row.id: row for row in ledger.rows}
        self._story = story
        self._asked = asked
        self._may_vanish = {one.sent.topic for one in asked if one.may_vanish}

    def offences(self) -> list[str]:
        return [
            *self._story.strays,
            *self._missing_rows(),
            *self._foreign_rows(),
            *self._unheard(),
            *self._wrong_words(),
            *self._wrong_codes(),
        ]

    def _missing_rows(self) -> Iterator[str]:
        """All have been taken by the broker by now: each question, and what came under its name, has a row."""
        stored = {(row.topic, row.payload) for row in self._rows.values()}
        asked = {
            (one.sent.topic, one.payload[:MAX_BYTES]) for one in self._asked if one.sent.topic in self._story.taken
        }
        for topic, payload in sorted(asked - stored):
            if topic in self._story.lost_questions:
                self.lost_by_broker["questions"] += 1
            elif topic not in self._may_vanish:
                yield f"{topic} was taken by a broker that lost nothing of it, and has no row: {payload[:80]!r}"

    def _foreign_rows(self) -> Iterator[str]:
        payloads: dict[str, set[bytes]] = {}
        for one in self._asked:
            payloads.setdefault(one.sent.topic, set()).add(one.payload[:MAX_BYTES])
        for row in self._rows.values():
            if row.payload not in payloads.get(row.topic or "", ()):
                yield f"request {row.id} ({row.topic}) holds what nobody sent: {row.payload!r}"

    def _unheard(self) -> Iterator[str]:
        heard = {(key_of(message), message.payload) for message in self._answers}
        lost = self._story.lost_answers.copy()
        for row in self._rows.values():
            answer = row.answer
            if answer is None or answer.state != "done" or (row.key, answer.payload) in heard:
                continue
            if row.topic in self._may_vanish:
                self.lost_by_broker["expired at the broker"] += 1
            elif lost[answer.topic] > 0:
                lost[answer.topic] -= 1
                self.lost_by_broker["answers"] += 1
            else:
                yield f"the answer of request {row.id} ({row.topic}) is on record as delivered and nobody heard it"

    def _wrong_words(self) -> Iterator[str]:
        """Every answer bears the number of its request, and its words are that request's."""
        words: dict[str, bytes] = {}
        for message in self._answers:
            request_id = message.properties.get("mq-id", "")
            row = self._rows.get(request_id)
            if row is None:
                yield f"an answer of no request: {message}"
            elif words.setdefault(request_id, message.payload) != message.payload:
                yield f"request {request_id} was answered twice, in other words: {message}, {words[request_id]!r}"
            elif key_of(message) != row.key:
                yield f"the answer of request {request_id} went to {key_of(message)}, asked for {row.key}"
            elif message.error_code is None and (why := _why_not_its_own(message, row)) is not None:
                yield f"request {request_id} {why}"

    def _wrong_codes(self) -> Iterator[str]:
        codes = {one.sent.topic: one.code for one in self._asked if one.code is not None}
        for row in self._rows.values():
            wanted = codes.get(row.topic or "")
            if wanted is not None and (row.state, row.reason) != (State.DEAD, wanted):
                yield f"request {row.id} ({row.topic}) is {row.state} with {row.reason}, not refused with {wanted}"


def _why_not_its_own(message: Message, row: Row) -> str | None:
    found = QUESTION.search(row.payload.decode("utf-8", "replace"))
    wanted = found and f"echo: {found[0]}"
    got = message.json["answer"] if message.content_type == "application/json" else message.text
    return None if got == wanted else f"was answered {got!r}, not {wanted!r}"


def _histories(database: Path, rows: Sequence[Row], offences: Sequence[str]) -> list[str]:
    """Returns the life of each row that an offence names, by its number or its topic."""
    text = "\n".join(offences)
    words = set(re.split(r"[\s(),:'\"]+", text))
    named = [row for row in rows if row.id in words or row.topic in words][:MAX_HISTORIES]
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return [_history(db, row) for row in named]


def _history(db: sqlite3.Connection, row: Row) -> str:
    query = (
        "SELECT at_ms, event, note FROM history WHERE request = (SELECT seq FROM requests WHERE id = ?) ORDER BY seq"
    )
    lines = [f"    {at_ms}  {event}  {note or ''}".rstrip() for at_ms, event, note in db.execute(query, (row.id,))]
    head = f"{row.id} {row.topic} {row.state} {row.reason or ''} {row.payload[:80]!r}"
    return "\n".join([head, *lines])
