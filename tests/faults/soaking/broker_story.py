"""What a broker that was killed may have lost, and what the daemon acknowledged without having been sent it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from broker_log import PUBACK, PUBLISH

CONNACK = re.compile(r"\d+: Sending CONNACK to (\S+) \((\d), \d+\)")
NO_SUBSCRIBER = "16"


class Logged(Protocol):
    """One life of a broker."""

    lines: list[str]


@dataclass
class BrokerStory:
    """Use `read` with the lives of one broker, in order."""

    daemon: str
    listeners: str
    """How the client ids of those begin that hear the answers."""
    taken: set[str] = field(default_factory=set)
    """Topics of the questions it acknowledged to their askers."""
    lost_questions: set[str] = field(default_factory=set)
    """Those that were with it alone when it was killed, or came while it knew no subscriber."""
    lost_answers: Counter[str] = field(default_factory=Counter)
    """Topics of answers that were with it alone when it was killed, and how many."""
    strays: list[str] = field(default_factory=list)
    """PUBACKs of the daemon for packets it had not been sent in that life of the broker."""
    losses: list[str] = field(default_factory=list)
    """One line for each kill of the broker."""
    _with_broker: set[str] = field(default_factory=set)
    _unheard: Counter[str] = field(default_factory=Counter)
    _packets: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _is_daemon_known: bool = False
    _while_unknown: set[str] = field(default_factory=set)

    def read(self, lives: Sequence[Logged], killed: Collection[int]) -> BrokerStory:
        """`killed`: the numbers of the lives that ended so."""
        for number, life in enumerate(lives):
            self._packets.clear()
            self._while_unknown.clear()
            for line in list(life.lines):
                self._read_line(line, number)
            if number in killed:
                self._end_by_force(number)
        return self

    def _read_line(self, line: str, life: int) -> None:
        if found := PUBLISH.match(line):
            self._publish(*found.groups(), is_dup=" (d1," in line)
        elif found := PUBACK.match(line):
            self._puback(*found.groups(), life=life)
        elif (found := CONNACK.match(line)) and found[1] == self.daemon:
            self._is_daemon_known = found[2] == "1"
            if self._is_daemon_known:
                self._while_unknown.clear()
        elif f" Received SUBSCRIBE from {self.daemon}" in line:
            self._is_daemon_known = True
            self.lost_questions |= self._while_unknown
            self._while_unknown.clear()

    def _publish(self, direction: str, client: str, qos: str, mid: str, topic: str, *, is_dup: bool) -> None:
        is_counted = not (client.startswith(self.listeners) and is_dup)
        if qos == "1":
            self._packets[direction, client, mid] = topic if is_counted else ""

    def _puback(self, direction: str, client: str, mid: str, code: str, *, life: int) -> None:
        topic = self._packets.pop(("Sending" if direction == "Received" else "Received", client, mid), None)
        if direction == "Received" and client == self.daemon:
            if topic is None:
                self.strays.append(f"packet {mid} was acknowledged and not sent, in life {life} of the broker")
            self._with_broker.discard(topic or "")
        elif direction == "Received" and client.startswith(self.listeners) and topic:
            self._unheard[topic] -= self._unheard[topic] > 0
        elif direction == "Sending" and client == self.daemon and topic and code != NO_SUBSCRIBER:
            self._unheard[topic] += 1
        elif direction == "Sending" and client != self.daemon and topic:
            self.taken.add(topic)
            self._with_broker.add(topic)
            if not self._is_daemon_known:
                self._while_unknown.add(topic)

    def _end_by_force(self, life: int) -> None:
        lost = +self._unheard
        self.losses.append(f"life {life}: up to {len(self._with_broker)} questions and {lost.total()} answers")
        self.lost_questions |= self._with_broker | self._while_unknown
        self.lost_answers += lost
        self._with_broker.clear()
        self._unheard.clear()
        self._is_daemon_known = False
