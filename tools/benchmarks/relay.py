"""Stands between the daemon and its broker and notes how long each question waits for its acknowledgement.

Run: relay.py PORT BROKER_PORT FILE. On SIGTERM it writes [[sent at, answered after], …] to FILE, in seconds of the
clock that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

PUBLISH, PUBACK = 3, 4
CHUNK_BYTES = 1 << 16


class Packets:
    """MQTT's control packets out of a stream of bytes: of each its first byte and its content."""

    def __init__(self, take: Callable[[int, bytes], object]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data
        while (found := _length(self._rest)) is not None:
            start, length = found
            if len(self._rest) < start + length:
                return
            self._take(self._rest[0], self._rest[start : start + length])
            self._rest = self._rest[start + length :]


def _length(data: bytes) -> tuple[int, int] | None:
    """Returns where the first packet's content begins and its length; None while that is not there yet."""
    value = 0
    for index, byte in enumerate(data[1:5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return index + 2, value
    return None


class Waits:
    """The time from a QoS 1 message to its PUBACK, by the packet identifier."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []
        self._sent_at: dict[bytes, float] = {}

    def sent(self, first: int, content: bytes) -> None:
        if first >> 4 == PUBLISH and first & 0b110:
            after_topic = 2 + int.from_bytes(content[:2], "big")
            self._sent_at[content[after_topic : after_topic + 2]] = time.monotonic()

    def answered(self, first: int, content: bytes) -> None:
        if first >> 4 == PUBACK and (sent_at := self._sent_at.pop(content[:2], None)) is not None:
            self.times.append((sent_at, time.monotonic() - sent_at))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, packets: Packets) -> None:
    while data := await source.read(CHUNK_BYTES):
        packets.feed(data)
        sink.write(data)
        await sink.drain()
    sink.close()


async def main(port: int, broker_port: int) -> list[tuple[float, float]]:
    waits, stopped = Waits(), asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", broker_port)
        await asyncio.gather(
            _pass_on(broker_reader, writer, Packets(waits.sent)),
            _pass_on(reader, broker_writer, Packets(waits.answered)),
            return_exceptions=True,
        )

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await asyncio.start_server(relay, "127.0.0.1", port)
    await stopped.wait()
    return waits.times


if __name__ == "__main__":
    times = asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
    Path(sys.argv[3]).write_text(json.dumps(times), encoding="utf-8")
