"""A tier on a raw socket: what it sends back is written out byte by byte, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from harness import WAIT_S, Signal, free_port


class Reset(Enum):
    """The connection ends in a reset instead of in good order."""

    NOW = auto()


Part = bytes | float | Reset
"""Bytes are sent; a number is a silence, seconds."""

MIB = 1024 * 1024
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class RawCall:
    """One chat completion it was asked for."""

    question: str
    key: str
    at_s: float
    """By the monotonic clock."""


@dataclass(frozen=True)
class HangUp:
    """A call whose asker went away before the reply was out."""

    call: RawCall
    after_s: float
    sent_bytes: int


def echo(call: RawCall) -> Iterable[Part]:
    """The good answer that everybody expects."""
    return [whole_stream(f"echo: {call.question}")]


Script = Callable[[RawCall], Iterable[Part]]


class BadTier:
    """Answers each call with the parts that `script` yields for it, then closes the connection."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self._tls = tls
        self.calls: list[RawCall] = []
        self.hang_ups: list[HangUp] = []
        self.script: Script = echo
        self._happened = Signal()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    def start(self) -> BadTier:
        self._run(self._start())
        return self

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def reset(self) -> None:
        self.script = echo
        self.calls.clear()
        self.hang_ups.clear()

    def asked(self, question: str) -> list[RawCall]:
        return [call for call in self.calls if question in call.question]

    def wait_for_calls(self, question: str, number: int = 1, timeout_s: float = WAIT_S) -> list[RawCall]:
        def found() -> list[RawCall] | None:
            calls = self.asked(question)
            return calls if len(calls) >= number else None

        return self._happened.wait(found, lambda: f"{number} calls for {question!r} in {self.calls}", timeout_s)

    def wait_for_hang_up(self, question: str, timeout_s: float = WAIT_S) -> HangUp:
        def found() -> HangUp | None:
            return next((end for end in self.hang_ups if question in end.call.question), None)

        return self._happened.wait(found, lambda: f"nobody hung up on {question!r}: {self.calls}", timeout_s)

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._tls)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"POST"):
            writer.write(reply(b'{"object": "list", "data": []}'))
            await writer.drain()
            return
        headers = _headers(head)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        call = RawCall(body["messages"][-1]["content"], headers.get("idempotency-key", ""), time.monotonic())
        self._happened.give(lambda: self.calls.append(call))
        is_heard, sent_bytes = await _send(reader, writer, self.script(call))
        if not is_heard:
            end = HangUp(call, time.monotonic() - call.at_s, sent_bytes)
            self._happened.give(lambda: self.hang_ups.append(end))


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: Iterable[Part]) -> tuple[bool, int]:
    """Returns whether the asker stayed for all of it, and how many bytes were written."""
    gone = asyncio.ensure_future(reader.read(1))  # the asker has said all: what comes is its end
    sent_bytes = 0
    try:
        for part in parts:
            if isinstance(part, Reset):
                _reset(writer)
                return True, sent_bytes
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
                sent_bytes += len(part)
            await asyncio.wait([gone], timeout=0 if isinstance(part, bytes) else part)
            if gone.done():
                return False, sent_bytes
    except ConnectionError:
        return False, sent_bytes
    else:
        return True, sent_bytes
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    at_once = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


# --- replies ----------------------------------------------------------------------------------------


def reply(body: bytes, *, length: int | None = None, kind: str = "application/json", status: str = "200 OK") -> bytes:
    """One whole HTTP reply; `length` is what its Content-Length claims, right without it."""
    claimed = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {claimed}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def event(text: str | None, *, finish_reason: str | None = None) -> bytes:
    """One event of a streamed completion."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"model": "bad-model", "choices": [choice]}).encode() + b"\n\n"


def whole_stream(text: str) -> bytes:
    """A good reply, streamed."""
    return STREAM_HEAD + event(text) + event(None, finish_reason="stop") + b"data: [DONE]\n\n"


def whole_object(text: str) -> bytes:
    """The body of a good reply in one piece."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "bad-model", "choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def drip(data: bytes, *, every_s: float = 1.0) -> Iterator[Part]:
    """One byte at a time."""
    for number in range(len(data)):
        yield data[number : number + 1]
        yield every_s


def repeated(block: bytes, size: int) -> Iterator[Part]:
    """At least `size` bytes of the same, a quarter of a mebibyte at a time."""
    part = block * max(1, MIB // 4 // len(block))
    for _ in range(size // len(part) + 1):
        yield part
