"""The evidence, held against the promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from broker_log import BrokerLog
from harness import Message
from ledger import Key, Ledger, Row
from listener import is_provisional, key_of

from mqrouter.core.states import State


@dataclass(frozen=True)
class Sent:
    """One question as a requester published it. `reply_topic` is where its answer must arrive, "" for nowhere."""

    number: int
    topic: str
    text: str
    reply_topic: str
    correlation: bytes | None
    is_valid: bool
    payload: bytes | None = None
    """The bytes published; None where nobody knows them."""

    @property
    def key(self) -> Key:
        return self.reply_topic, self.correlation


class Judgement:
    """The evidence of one moment, held against the promises."""

    def __init__(
        self,
        sent: Sequence[Sent],
        answers: Sequence[Message],
        log: BrokerLog,
        ledger: Ledger,
        expected_answer: Callable[[Sent], str],
        *,
        is_running: bool,
    ) -> None:
        self._sent = list(sent)
        self._answers = answers
        self._log = log
        self._ledger = ledger
        self._expected_answer = expected_answer
        self._is_running = is_running
        self._questions: dict[Key, list[Sent]] = {}
        for one in self._sent:
            self._questions.setdefault(one.key, []).append(one)
        self._rows: dict[Key, list[Row]] = {}
        self._topics: dict[str | None, list[Row]] = {}
        for row in ledger.rows:
            self._rows.setdefault(row.key, []).append(row)
            self._topics.setdefault(row.topic, []).append(row)

    def offenders(self, *, may_be_open: bool, broker_lost_sessions: bool, rows_may_be_missing: bool) -> Iterator[str]:
        if self._ledger.damage is not None:
            yield f"the database is damaged: {self._ledger.damage}"
        for client in self._log.dropping_for:
            yield f"the broker dropped messages for {client}: this test needs max_queued_messages 0"
        for row in self._ledger.rows:
            for fault in row.faults(may_be_open=may_be_open):
                yield f"request {row.id} ({row.topic}) {fault}"
        for sent in self._sent:
            yield from self._faults_of_the_rows(sent)
        if not rows_may_be_missing:
            yield from self._missing_rows(is_broker_trusted=not broker_lost_sessions)
        for key, answers in self._answers_by_key().items():
            yield from self._faults_of_answers(key, answers, rows_may_be_missing=rows_may_be_missing)
        if not broker_lost_sessions:
            yield from self._unheard()

    def _missing_rows(self, *, is_broker_trusted: bool) -> Iterator[str]:
        for topic in sorted(set(self._log.acknowledged) - self._topics.keys()):
            yield f"{topic} was acknowledged and has no row"
        if is_broker_trusted and self._is_running:
            asked = {sent.topic for sent in self._sent}
            for topic in sorted((self._log.taken & asked) - self._topics.keys()):
                yield f"{topic} was taken by the broker and has no row"

    def _faults_of_the_rows(self, sent: Sent) -> Iterator[str]:
        rows = self._topics.get(sent.topic, [])
        if rows and sent.payload is not None and not any(_holds(row, sent.payload) for row in rows):
            yield f"no row of {sent.topic} holds what was sent"
        if rows and sent.reply_topic and all(row.key != sent.key for row in rows):
            yield f"no row of {sent.topic} is to be answered at {sent.key}"

    def _answers_by_key(self) -> dict[Key, list[Message]]:
        found: dict[Key, list[Message]] = {}
        for message in self._answers:
            found.setdefault(key_of(message), []).append(message)
        return found

    def _faults_of_answers(self, key: Key, answers: list[Message], *, rows_may_be_missing: bool) -> Iterator[str]:
        questions, rows = self._questions.get(key, []), self._rows.get(key, [])
        if not questions:
            yield f"an answer to no question of ours: {answers[0]}"
            return
        provisional = [message for message in answers if is_provisional(message)]
        if len({message.payload for message in provisional}) > max(1, len(rows)):
            yield f"{questions[0].topic} had more than one provisional answer: {provisional}"
        answers = [message for message in answers if message not in provisional]
        words = {message.payload for message in answers}
        if rows_may_be_missing:
            ids, codes = None, None
        else:
            ids, codes = {row.id for row in rows}, {row.reason for row in rows}
            if stray := words - {row.answer.payload for row in rows if row.answer is not None}:
                yield f"{questions[0].topic} was answered with words no row holds: {stray}"
        if len(words) > max(1, len(rows)):
            yield f"{questions[0].topic} was answered in {len(words)} ways: {words}"
        expected = {self._expected_answer(one) for one in questions if one.is_valid}
        for message in answers:
            if message.is_retained:
                yield f"a retained answer: {message}"
            if ids is not None and message.properties.get("mq-id") not in ids:
                yield f"{questions[0].topic} got the answer of another request: {message}"
            if message.error_code is None and _text(message) not in expected:
                yield f"{questions[0].topic} was answered {_text(message)!r}, not {expected}"
            if message.error_code is not None and codes is not None and message.error_code not in codes:
                yield f"{questions[0].topic} got the error {message.error_code}, its rows say {codes}"

    def _unheard(self) -> Iterator[str]:
        """Answers whose delivery is on record reached us."""
        heard = {(key_of(message), message.payload) for message in self._answers}
        for key, rows in self._rows.items():
            for row in rows if key in self._questions else ():
                if row.answer is not None and row.answer.state == "done" and (key, row.answer.payload) not in heard:
                    yield f"the answer of request {row.id} ({row.topic}) is on record as delivered and nobody heard it"


def _holds(row: Row, payload: bytes) -> bool:
    """True for the bytes that came; of a refused payload the beginning is kept."""
    return row.payload == payload or (row.state is State.DEAD and payload.startswith(row.payload))


def _text(message: Message) -> str | None:
    if message.content_type == "application/json":
        answer: str | None = message.json.get("answer")
        return answer
    return message.text
