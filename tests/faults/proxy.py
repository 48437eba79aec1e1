"""A TCP proxy that spoils what passes it, in each direction by itself.

It runs on a thread of its own. Every call from outside returns once its change is in force, for the connections that
are open as for those to come. `up` is the way from the one who connects (the daemon) to the target (a broker, a tier),
`down` the way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness import WAIT_S, Signal
from mqtt_packets import Kind, Packet, PacketReader

T = TypeVar("T")

READ_BYTES = 65_536
BLOCKS_AHEAD = 16  # read and not yet passed on: beyond that the sender's own TCP has to wait
TAKE_S = 1.0
PACE_S = 0.05  # a throttled way sends so often


@dataclass(frozen=True)
class Rules:
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    chunk_bytes: int = READ_BYTES
    is_stalled: bool = False
    is_swallowing: bool = False

    @property
    def piece_bytes(self) -> int:
        if self.bytes_per_s is None:
            return self.chunk_bytes
        return min(self.chunk_bytes, max(1, int(self.bytes_per_s * PACE_S)))

    def pause_after_s(self, sent: int) -> float:
        return 0.0 if self.bytes_per_s is None else sent / self.bytes_per_s


@dataclass
class Trap:
    """Resets the connection at the `number`-th thing from now on: a packet of this kind (None: any), or a byte."""

    number: int
    counts_bytes: bool = False
    kind: int | None = None


class Way:
    """One direction of all connections."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.bytes_passed = 0
        self.packets: list[Packet] = []
        """Those whose header has passed, of all connections; none where the proxy carries something else."""
        self.resets = 0
        """How often a trap of this way has closed, and its connection is gone: it cannot spring the next trap."""
        self._run = run
        self._rules = Rules()
        self._trap: Trap | None = None
        self._changed = asyncio.Event()
        self._passed = Signal()

    # --- for the test -------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Each byte arrives that much later; as many may be under way as fit."""
        self._set(delay_s=seconds)

    def throttle(self, bytes_per_s: float) -> None:
        self._set(bytes_per_s=bytes_per_s)

    def slice(self, chunk_bytes: int) -> None:
        """No more than so many bytes in one TCP segment."""
        self._set(chunk_bytes=chunk_bytes)

    def stall(self) -> None:
        """Nothing passes, not even an end; what is under way passes after `heal`."""
        self._set(is_stalled=True)

    def swallow(self) -> None:
        """Everything is taken and nothing passes, not even an end; `heal` resets connections that lost bytes so."""
        self._set(is_swallowing=True)

    def reset_in_packet(self, number: int = 1, kind: Kind | None = None) -> None:
        """The connection is reset in the middle of the packet that is the `number`-th of this kind from now on."""
        self._arm(Trap(number, kind=kind))

    def reset_after(self, number: int) -> None:
        """The connection is reset once so many more bytes have passed."""
        self._arm(Trap(number, counts_bytes=True))

    def count(self, kind: Kind) -> int:
        return sum(packet.kind == kind for packet in tuple(self.packets))

    def wait_for_bytes(self, number: int, timeout_s: float = WAIT_S) -> None:
        """Waits until so many have passed since the proxy's start."""
        self._passed.wait(
            lambda: self.bytes_passed >= number or None, lambda: f"{self.bytes_passed} bytes passed", timeout_s
        )

    def wait_for_packets(self, kind: Kind, number: int = 1, timeout_s: float = WAIT_S) -> None:
        """Waits until so many of them have passed since the proxy's start."""
        self._passed.wait(lambda: self.count(kind) >= number or None, lambda: f"passed: {self.packets}", timeout_s)

    def wait_for_reset(self, number: int = 1, timeout_s: float = WAIT_S) -> None:
        self._passed.wait(lambda: self.resets >= number or None, lambda: f"passed: {self.packets}", timeout_s)

    # --- for the connections, on the loop -----------------------------------------------------------

    @property
    def rules(self) -> Rules:
        return self._rules

    async def wait_until_open(self, arrived_s: float) -> Rules:
        """Returns the rules for what arrived then, when its time to go on has come."""
        while True:
            rules = self._rules
            left_s = arrived_s + rules.delay_s - time.monotonic()
            if rules.is_stalled:
                await self._changed.wait()
            elif left_s > 0:
                await self.pause(left_s)
            else:
                return rules

    async def pause(self, seconds: float) -> None:
        """Waits so long, or until the rules change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def trapped_at(self, position: int, size: int, packets: list[Packet]) -> int | None:
        """Returns where in its connection the trap will close, if these bytes and packets set it off."""
        trap = self._trap
        if trap is None:
            return None
        if trap.counts_bytes:
            if size < trap.number:
                trap.number -= size
                return None
            self._trap = None
            return position + trap.number
        for packet in packets:
            if trap.kind in (None, packet.kind):
                trap.number -= 1
                if trap.number == 0:
                    self._trap = None
                    return packet.start + max(1, packet.size // 2)
        return None

    def note(self, sent: int, packets: list[Packet]) -> None:
        def change() -> None:
            self.bytes_passed += sent
            self.packets.extend(packets)

        self._passed.give(change)

    def note_reset(self) -> None:
        def change() -> None:
            self.resets += 1

        self._passed.give(change)

    def open(self) -> None:
        self._trap = None
        self._change(Rules())

    def _set(self, **values: Any) -> None:
        async def change() -> None:
            self._change(replace(self._rules, **values))

        self._run(change())

    def _arm(self, trap: Trap) -> None:
        async def change() -> None:
            self._trap = trap

        self._run(change())

    def _change(self, rules: Rules) -> None:
        self._rules = rules
        self._changed.set()
        self._changed = asyncio.Event()


class _Stream:
    """One direction of one connection."""

    def __init__(self, way: Way, source: socket.socket, target: socket.socket, *, is_mqtt: bool) -> None:
        self.has_lost_bytes = False
        self._is_trapped = False
        self._way = way
        self._source = source
        self._target = target
        self._reader = PacketReader() if is_mqtt else None
        self._blocks: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(BLOCKS_AHEAD)
        self._position = 0
        self._reset_at: int | None = None

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        block: bytes | OSError = b"more"
        while block and not isinstance(block, OSError):
            try:
                block = await loop.sock_recv(self._source, READ_BYTES)
            except OSError as error:
                block = error
            await self._blocks.put((time.monotonic(), block))

    async def write(self) -> None:
        """Returns after the source's end, or when the target takes no more. Raises ConnectionResetError."""
        while True:
            arrived_s, block = await self._blocks.get()
            rules = await self._way.wait_until_open(arrived_s)
            while rules.is_swallowing and not (isinstance(block, bytes) and block):
                await self._way.pause(WAIT_S)
                rules = self._way.rules
            if isinstance(block, OSError):
                raise ConnectionResetError from block
            try:
                if not block:
                    self._target.shutdown(socket.SHUT_WR)
                    return
                await self._pass_on(arrived_s, block)
            except ConnectionResetError:
                raise
            except OSError:
                return  # the target has gone: the way from there tells whether anybody may know

    def tell_end(self) -> None:
        """The connection is closed."""
        if self._is_trapped:
            self._way.note_reset()

    async def _pass_on(self, arrived_s: float, block: bytes) -> None:
        while block:
            rules = await self._way.wait_until_open(arrived_s)
            if rules.is_swallowing:
                self.has_lost_bytes = True
                return
            piece, block = block[: rules.piece_bytes], block[rules.piece_bytes :]
            await self._send(piece)
            if pause_s := rules.pause_after_s(len(piece)):
                await self._way.pause(pause_s)

    async def _send(self, piece: bytes) -> None:
        packets = list(self._reader.feed(piece)) if self._reader else []
        if self._reset_at is None:
            self._reset_at = self._way.trapped_at(self._position, len(piece), packets)
        end = self._position + len(piece)
        is_reset = self._reset_at is not None and self._reset_at <= end
        if is_reset:
            assert self._reset_at is not None
            piece = piece[: max(0, self._reset_at - self._position)]
        try:
            await asyncio.get_running_loop().sock_sendall(self._target, piece)
        except ConnectionResetError as error:
            raise BrokenPipeError from error  # not ours: see `write`
        self._position = end
        self._way.note(len(piece), packets)
        if is_reset:
            self._is_trapped = True
            await _until_taken(self._target)
            raise ConnectionResetError


class _Connection:
    def __init__(self, client: socket.socket, target: socket.socket, up: Way, down: Way, *, is_mqtt: bool) -> None:
        self._sockets = (client, target)
        self._streams = (
            _Stream(up, client, target, is_mqtt=is_mqtt),
            _Stream(down, target, client, is_mqtt=is_mqtt),
        )
        self._is_reset = False
        self._task = asyncio.create_task(self._carry())

    @property
    def is_open(self) -> bool:
        return not self._task.done()

    @property
    def has_lost_bytes(self) -> bool:
        return any(stream.has_lost_bytes for stream in self._streams)

    async def end(self, *, is_reset: bool) -> None:
        self._is_reset = is_reset
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _carry(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(stream.read()) for stream in self._streams]
                await asyncio.wait([group.create_task(stream.write()) for stream in self._streams])
                for reader in readers:
                    reader.cancel()
        except* ConnectionResetError:
            self._is_reset = True
        finally:
            for end in self._sockets:
                _close(end, is_reset=self._is_reset)
            for stream in self._streams:
                stream.tell_end()


async def _until_taken(end: socket.socket) -> None:
    """The other side's TCP has what was sent, unless it takes no more: a reset would throw away the rest.

    The kernel gives no event when that is so: it is asked.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAKE_S):
            while struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)))[0]:
                await asyncio.sleep(0.001)


def _close(end: socket.socket, *, is_reset: bool) -> None:
    if is_reset:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


class Proxy:
    """Listens on a free port of its own and carries each connection to `target_port`. Start it with `start`."""

    def __init__(self, target_port: int, *, is_mqtt: bool = False) -> None:
        self.connected_at_s: list[float] = []
        """When each connection was taken, monotonic; those that were reset at once as well."""
        self._target_port = target_port
        self._is_mqtt = is_mqtt
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.up, self.down = Way(self._run), Way(self._run)
        self._connected = Signal()
        self._connections: list[_Connection] = []
        self._accepting: asyncio.Task[None] | None = None
        self._is_rejecting = False
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for the test -------------------------------------------------------------------------------

    def start(self) -> Proxy:
        self._thread.start()
        self._run(self._open())
        return self

    def close(self) -> None:
        self._run(self._close_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def cut(self) -> None:
        """Open connections end politely, in both directions."""
        self._run(self._end_all(is_reset=False))

    def reset(self) -> None:
        """Open connections end with RST, in both directions."""
        self._run(self._end_all(is_reset=True))

    def refuse(self) -> None:
        """Nobody listens any more; open connections stay."""
        self._run(self._shut())

    def reject(self) -> None:
        """New connections are reset at once, and counted; open ones stay."""

        async def change() -> None:
            self._is_rejecting = True

        self._run(change())

    def heal(self) -> None:
        """Everything passes as if we were not there."""
        self._run(self._heal())

    def wait_for_connections(self, number: int = 1, timeout_s: float = WAIT_S) -> None:
        """Waits until so many have been taken since the start."""
        self._connected.wait(
            lambda: len(self.connected_at_s) >= number or None,
            lambda: f"{len(self.connected_at_s)} connections",
            timeout_s,
        )

    # --- on the loop --------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _open(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = _listen(self.port)
        self._accepting = asyncio.create_task(self._accept_forever())

    async def _shut(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
        self._listener.close()

    async def _end_all(self, *, is_reset: bool) -> None:
        for connection in self._connections:
            await connection.end(is_reset=is_reset)
        self._connections.clear()

    async def _close_all(self) -> None:
        await self._shut()
        await self._end_all(is_reset=False)

    async def _heal(self) -> None:
        self._is_rejecting = False
        for connection in self._connections:
            if connection.has_lost_bytes:
                await connection.end(is_reset=True)
        for way in (self.up, self.down):
            way.open()
        if self._accepting is None:
            await self._open()

    async def _accept_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            self._connections = [connection for connection in self._connections if connection.is_open]
            await self._take(client)
            self._connected.give(lambda: self.connected_at_s.append(time.monotonic()))

    async def _take(self, client: socket.socket) -> None:
        target = socket.socket()
        try:
            if self._is_rejecting:
                raise ConnectionRefusedError
            for end in (client, target):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(target, ("127.0.0.1", self._target_port))
        except OSError:
            _close(client, is_reset=True)
            target.close()
        else:
            self._connections.append(_Connection(client, target, self.up, self.down, is_mqtt=self._is_mqtt))


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=100)
    listener.setblocking(False)
    return listener
