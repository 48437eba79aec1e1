"""Questions of every kind, good and bad, and the thread that keeps asking them in an order that the seed decides."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import paho.mqtt.client as paho
from harness import WAIT_S
from oracle import Oracle, Sent

DEVICES = tuple(f"dev{number}" for number in range(6))
MAX_BYTES = 4096
"""No more is kept of a larger one."""
MAX_DEPTH = 8
MAX_UNSENT = 400
PAUSE_S = (0.0, 0.07)


@dataclass(frozen=True)
class Asked:
    """A question and how it was published, so that it can be published again."""

    sent: Sent
    version: int
    payload: bytes
    reply_to: str | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    qos: int = 1
    code: str | None = None
    """The refusal it must get, for one that cannot be accepted."""
    is_private: bool = False
    has_name: bool = True

    @property
    def may_vanish(self) -> bool:
        """The broker need not carry it, nor its answer."""
        return self.qos == 0 or self.expiry_s is not None


@dataclass(frozen=True)
class Bad:
    payload: bytes
    code: str = "bad_request"
    content_type: str | None = None
    reply_to: str | None = None


BAD = (
    Bad(b"frost \xff\xfe?", "not_utf8"),
    Bad(b'{"question": "frost \xc3("}', "not_utf8"),
    Bad(b'{"question": "frost?"'),
    Bad(b'{"question": "frost?", "ttl_s": NaN}'),
    Bad(b'{"question": "frost?", "x": ' + b"[" * 30 + b"]" * 30 + b"}"),
    Bad(b'{"question": "frost?", "x": ' + b"[" * 900),
    Bad(b"\0\0\0"),
    Bad(b""),
    Bad(b" \r\n"),
    Bad(b"{}"),
    Bad(b'{"question": 7}'),
    Bad(b'{"question": "\\ud800"}', "not_utf8"),
    Bad(b'{"question": "frost?", "messages": []}'),
    Bad(b'{"messages": [{"role": "wizard", "content": "frost?"}]}'),
    Bad(b'{"question": "frost?", "priority": 10}'),
    Bad(b'{"question": "frost?", "ttl_s": -1}'),
    Bad(b'{"question": "frost?", "privat": true}'),
    Bad(b"frost? " * 700, "too_large"),
    Bad(b"frost?", "unsupported_type", content_type="image/png"),
    Bad(b"{frost}", content_type="application/json"),
    Bad(b"frost?", "bad_reply_topic", reply_to="replies/+"),
    Bad(b"frost?", "bad_reply_topic", reply_to="$SYS/broker"),
    Bad(b"frost?", "bad_reply_topic", reply_to="mqrouter/farm/ask/dev0/loop"),
    Bad(b"frost?", "bad_reply_topic", reply_to="mqrouter/farm/status"),
)


class Questions:
    """Makes and publishes questions; `name` marks those of one source. For one thread."""

    def __init__(self, oracle: Oracle, random: Random, name: str) -> None:
        self.asked: list[Asked] = []
        self.infos: list[paho.MQTTMessageInfo] = []
        """Of what the broker has to acknowledge."""
        self.counts: Counter[str] = Counter()
        self._oracle = oracle
        self._random = random
        self._name = name
        self._numbers = itertools.count(1)

    @property
    def unsent(self) -> int:
        self.infos = [info for info in self.infos if not info.is_published()]
        return len(self.infos)

    def ask(self, device: str | None = None) -> None:
        """One valid question, or one that a rule of this gateway turns down."""
        random = self._random
        version = random.choice((4, 5))
        device = device or random.choice(DEVICES)
        name = f"{self._name}{next(self._numbers)}"
        text = f"will there be frost in field {name}?"
        is_json, expiry_s, fields = random.random() < 0.5, None, {}
        if is_json:
            fields = self._fields()
        elif version == 5 and random.random() < 0.08:
            expiry_s = random.randint(1, 3)
        payload = json.dumps({"question": text, "id": name, **fields}) if is_json else text
        topic, reply_topic = self._topics(device, name)
        correlation, is_shared = None, False
        if version == 5:
            is_shared = random.random() < 0.5
            correlation = b"\x00\xff" + name.encode() if is_shared else b"the same for all"
        if is_shared:
            reply_topic = f"{self._oracle.prefix}/answer/{device}/shared"
        sent = Sent(len(self.asked), topic, text, reply_topic, correlation, True)
        qos = 0 if random.random() < 0.03 else 1
        self._publish(
            Asked(
                sent,
                version,
                payload.encode(),
                reply_to=reply_topic if is_shared else None,
                expiry_s=expiry_s,
                qos=qos,
                is_private="private" in fields,
            )
        )

    def ask_without_a_name(self) -> None:
        """Nothing tells a repetition of it from a new question."""
        device = f"nameless-{self._name}{next(self._numbers)}"
        text = f"will there be frost at {device}?"
        prefix = self._oracle.prefix
        sent = Sent(0, f"{prefix}/ask/{device}", text, f"{prefix}/answer/{device}", None, True)
        self._publish(Asked(sent, self._random.choice((4, 5)), text.encode(), has_name=False))

    def repeat(self) -> None:
        """The same again: one of the last ones, or one of long ago."""
        if self.asked:
            recent = self.asked[-20:] if self._random.random() < 0.5 else self.asked
            self._send(self._random.choice(recent))
            self.counts["repeated"] += 1

    def reuse(self) -> None:
        """Something else under the name of a question."""
        names = [asked for asked in self.asked[-200:] if asked.code is None and asked.has_name]
        if not names:
            return
        old = self._random.choice(names)
        text = f"something else than {old.sent.text}"
        payload = text if old.sent.correlation else json.dumps({"question": text, "id": old.sent.topic.split("/")[-1]})
        sent = Sent(0, old.sent.topic, text, old.sent.reply_topic, old.sent.correlation, True)
        self._publish(Asked(sent, old.version, payload.encode(), reply_to=old.reply_to))
        self.counts["reused"] += 1

    def ask_badly(self) -> None:
        bad = self._random.choice(BAD)
        device, name = self._random.choice(DEVICES), f"bad-{self._name}{next(self._numbers)}"
        topic, reply_topic = self._topics(device, name)
        only_5 = bad.content_type is not None or bad.reply_to is not None
        version = 5 if only_5 else self._random.choice((4, 5))
        correlation = name.encode() if version == 5 else None
        sent = Sent(0, topic, "", reply_topic, correlation, False)
        self._publish(
            Asked(sent, version, bad.payload, reply_to=bad.reply_to, content_type=bad.content_type, code=bad.code)
        )
        self.counts["bad"] += 1

    def burst(self, number: int, device: str | None = None) -> None:
        for _ in range(number):
            self.ask(device)
        self.counts["bursts"] += 1

    def _fields(self) -> dict[str, object]:
        random = self._random
        fields: dict[str, object] = {}
        if random.random() < 0.7:
            fields["priority"] = random.randint(0, 9)
        if random.random() < 0.3:
            fields["ttl_s"] = random.choice([0.05, 0.5, 2.0, 600.0, 1e6])
        if random.random() < 0.15:
            fields["private"] = True
        if random.random() < 0.4:
            fields["route"] = random.choice(["frost", "care", "care", "urgent", "nowhere"])
        return fields

    def _topics(self, device: str, name: str) -> tuple[str, str]:
        return f"{self._oracle.prefix}/ask/{device}/{name}", f"{self._oracle.prefix}/answer/{device}/{name}"

    def _publish(self, asked: Asked) -> None:
        self._oracle.note(asked.sent)  # before it can be answered
        self.asked.append(asked)
        self._send(asked)

    def _send(self, asked: Asked) -> None:
        info = self._oracle.asker(asked.version).send(
            asked.sent.topic,
            asked.payload,
            reply_to=asked.reply_to,
            correlation=asked.sent.correlation,
            content_type=asked.content_type,
            expiry_s=asked.expiry_s,
            qos=asked.qos,
        )
        if info.rc == paho.MQTT_ERR_NO_CONN:
            info.rc = paho.MQTT_ERR_SUCCESS  # it is kept, and sent with the next connection
        if asked.qos:
            self.infos.append(info)


class Traffic:
    """Use as a context manager: asks on a thread of its own. An error of the thread is raised at the end."""

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self._random = Random(f"questions {seed}")
        self.questions = Questions(oracle, self._random, "q")
        self._is_stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._weights: dict[Callable[[], None], float] = {
            self.questions.ask: 70,
            self.questions.repeat: 10,
            self.questions.ask_badly: 9,
            self.questions.reuse: 4,
            self.questions.ask_without_a_name: 3,
            self._burst: 0.4,
        }

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join(WAIT_S)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._is_stopping.wait(self._random.uniform(*PAUSE_S)):
                while self.questions.unsent > MAX_UNSENT and not self._is_stopping.wait(0.1):
                    pass
                self.act()
        except BaseException as error:
            self._error = error

    def act(self) -> None:
        """Asks what comes next."""
        [act] = self._random.choices(list(self._weights), list(self._weights.values()))
        act()

    def _burst(self) -> None:
        device = self._random.choice([None, *DEVICES])
        self.questions.burst(self._random.randint(60, 250), device)
