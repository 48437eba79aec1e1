"""What mosquitto logged: the side of the story that the daemon does not tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

PUBLISH = re.compile(r"\d+: (Sending|Received) PUBLISH (?:to|from) (\S+) \(d\d, q(\d), r\d, m(\d+), '(.*)', \.\.\. ")
PUBACK = re.compile(r"\d+: (Sending|Received) PUBACK (?:to|from) (\S+) \((?:m|Mid: )(\d+), (?:rc|RC:)(\d+)\)")
DROPPED = re.compile(r"\d+: Outgoing messages are being dropped for client (.*)\.")


class Logged(Protocol):
    lines: list[str]


@dataclass
class BrokerLog:
    """What passed between the broker and everybody else, seen from the daemon with this client id."""

    client_id: str
    acknowledged: list[str] = field(default_factory=list)
    """Topics of the requests the daemon acknowledged, one entry for each PUBACK."""
    taken: set[str] = field(default_factory=set)
    """Topics of the messages the broker acknowledged to their senders, since the daemon first subscribed."""
    published: list[str] = field(default_factory=list)
    """Topics of the messages that came from the daemon."""
    dropping_for: set[str] = field(default_factory=set)
    """Clients whose queue overflowed: mosquitto acknowledges such a message and forgets it."""


def read_log(lives: Sequence[Logged], client_id: str) -> BrokerLog:
    """Returns what the lives of one broker logged."""
    log = BrokerLog(client_id)
    topics: dict[tuple[str, str, str], str] = {}
    is_subscribed = False
    for line in (line for life in lives for line in list(life.lines)):
        if f" Received SUBSCRIBE from {client_id}" in line:
            is_subscribed = True
        elif found := PUBLISH.match(line):
            direction, client, qos, mid, topic = found.groups()
            if direction == "Received" and client == client_id:
                log.published.append(topic)
            if qos == "1":
                topics[direction, client, mid] = topic
        elif found := PUBACK.match(line):
            direction, client, mid, _ = found.groups()
            answered = topics.pop(("Sending" if direction == "Received" else "Received", client, mid), None)
            if answered is not None and direction == "Received" and client == client_id:
                log.acknowledged.append(answered)
            elif answered is not None and direction == "Sending" and client != client_id and is_subscribed:
                log.taken.add(answered)
        elif found := DROPPED.match(line):
            log.dropping_for.add(found.group(1))
    return log
