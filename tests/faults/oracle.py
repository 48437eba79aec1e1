"""Asks questions, hears every answer, and says at the end whether the promises were kept.

It listens on a connection of its own, straight at the broker, in a session that outlives both. Its evidence is the
broker's log (what was acknowledged, and by whom), the answers it heard, and the daemon's database. A broker that
holds more than 1,000 messages for one client drops the rest: larger tests set `max_queued_messages 0`.
"""

from __future__ import annotations

import itertools
import json
import os
import tomllib
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import paho.mqtt.client as paho
from broker_log import BrokerLog, read_log
from harness import WAIT_S, Gateway, Message, Mosquitto, Requester, poll
from judgement import Judgement, Sent
from ledger import Ledger, read_ledger
from listener import Listener, key_of

__all__ = ["Counts", "Form", "Oracle", "Sent"]

Form = Literal["text", "json"]

MAX_SHOWN = 20


@dataclass(frozen=True)
class Counts:
    """`answers` counts every one heard, `duplicates` those that only repeat an earlier one's words."""

    sent: int
    acknowledged: int
    rows: int
    answers: int
    duplicates: int
    extra: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = {name: getattr(self, name) for name in ("sent", "acknowledged", "rows", "answers", "duplicates")}
        return ", ".join(f"{name} {value}" for name, value in (numbers | self.extra).items())


on_judged: Callable[[Counts], None] = lambda _counts: None  # noqa: E731
"""Called with the counts of each judgement; the conftest puts them into the report."""


class Oracle:
    """Use as a context manager, or `close` it. `extra` is what else the test counted: it is printed with the rest."""

    def __init__(self, broker: Mosquitto, gateway: Gateway, *, devices: int = 4) -> None:
        settings = tomllib.loads(gateway.config.read_text(encoding="utf-8"))
        name = settings["gateway"]["name"]
        self.client_id = settings["mqtt"].get("client_id", "mqrouter-{gateway}").replace("{gateway}", name)
        self.prefix = settings["mqtt"].get("prefix", "mqrouter/{gateway}").replace("{gateway}", name)
        self.database = gateway.folder / settings["gateway"].get("data_dir", "data") / "mqrouter.db"
        self.expected_answer: Callable[[Sent], str] = lambda sent: f"echo: {sent.text}"
        self.extra: dict[str, object] = {}
        self.sent: list[Sent] = []
        self._broker = broker
        self._gateway = gateway
        self._devices = itertools.cycle([f"dev{number}" for number in range(devices)])
        self._numbers = itertools.count(1)
        self._askers: dict[int, Requester] = {}
        self._mark = f"oracle/{uuid.uuid4().hex[:8]}"
        self._listener = Listener(broker.port, self._mark, [f"{self.prefix}/answer/#", f"{self._mark}/#"])

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for asker in self._askers.values():
            asker.close()
        self._listener.close()

    @property
    def answers(self) -> list[Message]:
        """Every message heard so far, in order, repeated ones too."""
        return list(self._listener.messages)

    @property
    def open(self) -> int:
        """How many questions have no answer yet."""
        return len({sent.key for sent in self.sent} - self._listener.keys)

    # --- asking -------------------------------------------------------------------------------------

    def ask(
        self,
        number: int = 1,
        *,
        version: int = 5,
        form: Form = "text",
        wait_for_puback: bool = True,
        text: str | None = None,
        device: str | None = None,
        expiry_s: int | None = None,
        **fields: object,
    ) -> list[Sent]:
        """Publishes new questions, without `wait_for_puback` in the background; `fields` are keys of the JSON form.

        Every question has a topic, in MQTT 5 a correlation, and without `text` words of its own. Every other one of
        MQTT 5 names a response topic, which all questions of its device share.
        """
        assert form == "json" or not fields, "only JSON has fields"
        names = [device or next(self._devices) for _ in range(number)]
        asked = [self._new_question(version, form, name, text, fields) for name in names]
        self.sent += asked  # before they can be answered
        infos = [self._send(sent, version, expiry_s) for sent in asked]
        for info in infos if wait_for_puback else ():
            info.wait_for_publish(WAIT_S)
            assert info.is_published(), "no PUBACK"
        return asked

    def ask_again(self, sent: Sent, *, version: int = 5) -> None:
        """Publishes the very same question once more; it is no further question."""
        self._send(sent, version, None).wait_for_publish(WAIT_S)

    def asker(self, version: int = 5) -> Requester:
        """The client that publishes the questions, for messages `ask` does not make: `note` those."""
        if version not in self._askers:
            self._askers[version] = Requester(self._broker.port, version=version)
        return self._askers[version]

    def note(self, sent: Sent) -> None:
        """A question published elsewhere is judged with the others."""
        self.sent.append(sent)

    def _new_question(self, version: int, form: Form, device: str, text: str | None, fields: dict[str, object]) -> Sent:
        number = next(self._numbers)
        name = f"q{number}"
        text = f"will there be frost in field {number}?" if text is None else text
        payload = text if form == "text" else json.dumps({"question": text, "id": name, **fields})
        reply_topic = f"{self.prefix}/answer/{device}/{name}"
        if version == 5 and number % 2:
            reply_topic = f"{self._mark}/{device}"
        correlation = b"\x00\xff" + os.urandom(4) + name.encode() if version == 5 else None
        topic = f"{self.prefix}/ask/{device}/{name}"
        return Sent(number, topic, text, reply_topic, correlation, is_valid=True, payload=payload.encode())

    def _send(self, sent: Sent, version: int, expiry_s: int | None) -> paho.MQTTMessageInfo:
        assert sent.payload is not None
        reply_to = sent.reply_topic if sent.reply_topic.startswith(self._mark) else None
        asker = self.asker(version)
        return asker.send(sent.topic, sent.payload, reply_to=reply_to, correlation=sent.correlation, expiry_s=expiry_s)

    # --- waiting ------------------------------------------------------------------------------------

    def wait_for_answers(self, sent: Sequence[Sent] | None = None, timeout_s: float = WAIT_S) -> None:
        """Each of these questions, or each of all with a reply topic, has at least one answer."""
        wanted = {one.key for one in (self.sent if sent is None else sent) if one.reply_topic}

        def found() -> bool | None:
            return wanted <= self._listener.keys or None

        def missing() -> str:
            return f"{len(wanted - self._listener.keys)} of {len(wanted)} without an answer: {self.counted()}"

        self._listener.heard.wait(found, missing, timeout_s)

    def wait_for_number(self, answers: int, timeout_s: float = WAIT_S) -> None:
        """So many questions have an answer."""
        self._listener.heard.wait(
            lambda: len(self._listener.keys) >= answers or None,
            lambda: f"{answers} questions answered: {self.counted()}",
            timeout_s,
        )

    def has_answers(self, sent: Sequence[Sent]) -> bool:
        return {one.key for one in sent} <= self._listener.keys

    def answers_to(self, sent: Sent) -> list[Message]:
        return [message for message in self.answers if key_of(message) == sent.key]

    # --- judging ------------------------------------------------------------------------------------

    def log(self) -> BrokerLog:
        return read_log(self._broker.lives, self.client_id)

    def ledger(self) -> Ledger:
        return read_ledger(self.database)

    def counted(self) -> Counts:
        return self._count(self.log(), self.ledger())

    def judge(
        self,
        *,
        may_be_open: bool = False,
        broker_lost_sessions: bool = False,
        rows_may_be_missing: bool = False,
        settle_s: float = WAIT_S,
    ) -> Counts:
        """Every promise was kept: raises AssertionError with each offender, once they have had time to settle.

        `may_be_open`: requests may still be under way. `broker_lost_sessions`: what the broker had acknowledged, in
        either direction, may be gone with it. `rows_may_be_missing`: the database was replaced.
        """

        def found() -> tuple[list[str], Counts]:
            log, ledger = self.log(), self.ledger()
            judgement = Judgement(
                self.sent, self.answers, log, ledger, self.expected_answer, is_running=self._gateway.log.is_running
            )
            offenders = list(
                judgement.offenders(
                    may_be_open=may_be_open,
                    broker_lost_sessions=broker_lost_sessions,
                    rows_may_be_missing=rows_may_be_missing,
                )
            )
            return offenders, self._count(log, ledger)

        last: list[str] = []

        def settled() -> Counts | None:
            last[:], counts = found()
            return None if last else counts

        counts = poll(settled, lambda: _listed(last, self.counted()), settle_s)
        on_judged(counts)
        return counts

    def _count(self, log: BrokerLog, ledger: Ledger) -> Counts:
        answers = self.answers
        distinct = {(key_of(message), message.payload) for message in answers}
        return Counts(
            len(self.sent),
            len(log.acknowledged),
            len(ledger.rows),
            len(answers),
            len(answers) - len(distinct),
            dict(self.extra),
        )


def _listed(offenders: list[str], counts: Counts) -> str:
    kinds = Counter(offenders)
    shown = "\n  ".join(list(kinds)[:MAX_SHOWN])
    return f"{len(offenders)} offences ({counts}):\n  {shown}"
