"""One socket of paho's: opened on a thread, because that blocks, then read and written by the event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho

from mqrouter.errors import MqrouterError

READS_PER_WAKE = 64  # packets read before other work gets its turn
BLOCK_BYTES = 65_536


class ConnectionFailedError(MqrouterError):
    """Try again later: the broker cannot be reached, or refused.

    `is_wrong_version` says to try the next protocol; `is_silent`, that a CONNECT of MQTT 5 got no answer at all.
    """

    def __init__(self, message: str, *, is_wrong_version: bool = False, is_silent: bool = False) -> None:
        super().__init__(message)
        self.is_wrong_version = is_wrong_version
        self.is_silent = is_silent


class BlockClient(paho.Client):
    """Reads its socket in blocks.

    paho itself asks for each packet in three pieces or more, and with each piece the thread lets go of the interpreter.
    """

    _block = b""
    _taken = 0
    is_at_end = False
    """True where the other side has closed the connection; with TLS also where it broke."""

    @property
    def has_more(self) -> bool:
        """True where bytes were read that paho has not seen yet: no selector will announce them."""
        return self._taken < len(self._block)

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.has_more:
            self._block, self._taken = super()._sock_recv(max(bufsize, BLOCK_BYTES)), 0
            self.is_at_end = not self._block
        start = self._taken
        self._taken = min(start + bufsize, len(self._block))
        return self._block[start : self._taken]


class Wire:
    """`on_broken(error)` is told what paho raises while it reads or writes: a malformed packet makes it raise."""

    def __init__(self, client: BlockClient, on_broken: Callable[[Exception], None]) -> None:
        self._client = client
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._is_closed = False
        self.is_attached = False
        """True while the event loop reads and writes the socket."""
        client.on_socket_open = self._opened
        client.on_socket_close = self._closed
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._written

    @property
    def is_at_end(self) -> bool:
        """True where the broker closed the connection; False where it broke, and where TLS hides which."""
        return self._client.is_at_end and type(self._socket) is socket.socket

    async def open(self, connect: Callable[[], None]) -> None:
        """The client's socket is open, and the event loop reads and writes it.

        Raises what `connect` raises, and ConnectionFailedError where the socket is closed by then.
        """
        await self._in_thread(connect)
        self._socket = self._client.socket()  # type: ignore[assignment]
        if self._socket is None:
            raise ConnectionFailedError("the connection was closed at once")
        self.is_attached = True
        self._loop.add_reader(self._socket, self._read)
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._write)
        self._timer = self._loop.call_later(1.0, self._tick)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Name look-up, TCP and TLS block. Not the loop's executor: the process would wait for it at its end."""
        done: asyncio.Future[None] = self._loop.create_future()

        def end(error: Exception | None) -> None:
            if done.done():
                return  # nobody waits any more
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            error = None
            try:
                work()
            except Exception as caught:
                error = caught
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(end, error)

        threading.Thread(target=run, name="mqtt.connect", daemon=True).start()
        await done

    def close(self) -> None:
        """Nothing is read or written any more. May be called again."""
        self._is_closed = True
        self._detach()
        opened = self._client.socket()
        if opened is not None:
            opened.close()

    def _detach(self) -> None:
        if self.is_attached and self._socket is not None:
            self.is_attached = False
            self._timer.cancel()
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    # --- the event loop -----------------------------------------------------------------------------

    def _read(self) -> None:
        if not self.is_attached:
            return
        try:
            self._read_some()
        except Exception as error:
            self._on_broken(error)

    def _read_some(self) -> None:
        for _ in range(READS_PER_WAKE):
            if self._client.loop_read() != paho.MQTT_ERR_SUCCESS or not self.is_attached or not self._has_pending():
                return
        self._loop.call_soon(self._read)

    def _has_pending(self) -> bool:
        """True where there are bytes that no selector will announce; TLS holds what it has decrypted."""
        pending = getattr(self._socket, "pending", None)
        return self._client.has_more or (pending is not None and bool(pending()))

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:
            self._on_broken(error)

    def _tick(self) -> None:
        try:
            self._client.loop_misc()
        except Exception as error:
            self._on_broken(error)
        if self.is_attached:
            self._timer = self._loop.call_later(1.0, self._tick)

    # --- paho's callbacks ---------------------------------------------------------------------------

    def _opened(self, _client: Any, _data: Any, opened: Any) -> None:
        if self._is_closed:  # too late: a CONNECT now would take the session from our next connection
            opened.close()
        else:  # an answer must not wait for the broker's TCP to acknowledge our PUBACK
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _closed(self, _client: Any, _data: Any, _socket: Any) -> None:
        self._detach()  # before paho closes it: the number may soon be another socket's

    def _want_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        # During connect this runs on the connecting thread; `open` catches up on the loop's own.
        if self.is_attached and self._socket is not None:
            self._loop.add_writer(self._socket, self._write)

    def _written(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self.is_attached and self._socket is not None:
            self._loop.remove_writer(self._socket)
