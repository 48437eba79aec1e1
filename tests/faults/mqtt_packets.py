"""The packets of MQTT in a stream of bytes: what kind each is, where it begins and how long it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What an MQTT packet is; its first four bits."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


@dataclass(frozen=True)
class Packet:
    """An MQTT packet: `start` is its place in the bytes of its connection, `size` includes the header."""

    kind: int
    start: int
    size: int


class PacketReader:
    """Finds the packets in one direction of one connection."""

    def __init__(self) -> None:
        self._position = 0
        self._header = bytearray()
        self._body_left = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yields each packet whose header ends in these bytes."""
        at = 0
        while at < len(data):
            if self._body_left:
                step = min(self._body_left, len(data) - at)
                self._body_left -= step
            else:
                step = 1
                self._header.append(data[at])
                if len(self._header) > 1 and data[at] < 0x80:
                    yield self._end_of_header()
            at += step
            self._position += step

    def _end_of_header(self) -> Packet:
        kind, *lengths = self._header
        self._body_left = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(lengths))
        size = len(self._header) + self._body_left
        start = self._position + 1 - len(self._header)
        self._header.clear()
        return Packet(kind >> 4, start, size)
