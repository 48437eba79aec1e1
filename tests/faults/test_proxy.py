"""The proxy does to a connection what the fault tests believe it does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from harness import WAIT_S
from mqtt_packets import Kind, Packet, PacketReader
from proxy import Proxy

PUBLISH = bytes([0x32, 130, 1]) + bytes(130)  # 133 bytes with its header
PINGREQ = b"\xc0\x00"


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    client.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo, is_mqtt=True) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with _connect(proxy) as client:
        proxy.wait_for_connections()
        yield client


def _connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _read(client: socket.socket, number: int) -> bytes:
    data = b""
    while len(data) < number:
        more = client.recv(number - len(data))
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def _is_silent(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(WAIT_S)
    return False


def test_bytes_pass_unchanged(proxy: Proxy, client: socket.socket) -> None:
    data = bytes(range(256)) * 4_000

    threading.Thread(target=client.sendall, args=(data,)).start()

    assert _read(client, len(data)) == data
    proxy.down.wait_for_bytes(len(data))


def test_delay_holds_up_one_direction(proxy: Proxy, client: socket.socket) -> None:
    proxy.up.delay(0.2)
    started_s = time.monotonic()
    for _ in range(5):
        client.sendall(b"x")

    _read(client, 5)

    assert 0.2 <= time.monotonic() - started_s < 0.6


def test_throttle_keeps_the_pace(proxy: Proxy, client: socket.socket) -> None:
    proxy.down.throttle(1_000)
    started_s = time.monotonic()
    client.sendall(bytes(300))

    _read(client, 251)

    assert 0.24 <= time.monotonic() - started_s < 1


def test_slices_arrive_one_by_one_where_they_are_throttled(proxy: Proxy, client: socket.socket) -> None:
    proxy.down.slice(1)
    proxy.down.throttle(1_000)
    client.sendall(bytes(100))

    sizes = [len(client.recv(100))]
    while sum(sizes) < 100:
        sizes.append(len(client.recv(100)))

    assert len(sizes) > 10


@pytest.mark.parametrize("direction", ["up", "down"])
def test_stalled_way_lets_its_bytes_and_its_end_pass_after_healing(
    proxy: Proxy, client: socket.socket, direction: str
) -> None:
    way = {"up": proxy.up, "down": proxy.down}[direction]
    way.stall()
    client.sendall(b"late")
    client.shutdown(socket.SHUT_WR)
    assert _is_silent(client)

    proxy.heal()

    assert _read(client, 4) == b"late"
    assert client.recv(1) == b""


def test_swallowed_bytes_are_gone_and_so_is_their_connection(proxy: Proxy, client: socket.socket) -> None:
    proxy.up.swallow()
    client.sendall(b"gone")
    assert _is_silent(client)

    proxy.heal()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with _connect(proxy) as fresh:
        fresh.sendall(b"here")
        assert _read(fresh, 4) == b"here"


def test_swallowed_end_is_not_heard_of(proxy: Proxy, client: socket.socket) -> None:
    proxy.up.swallow()

    client.shutdown(socket.SHUT_WR)

    assert _is_silent(client)


def test_cut_is_an_end_and_reset_is_an_error(proxy: Proxy) -> None:
    with _connect(proxy) as first:
        proxy.wait_for_connections()
        proxy.cut()
        assert first.recv(1) == b""
    with _connect(proxy) as second:
        proxy.wait_for_connections(2)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            second.recv(1)


def test_refused_and_rejected_connections(proxy: Proxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    client.sendall(b"still there")
    _read(client, 11)

    proxy.heal()
    proxy.reject()
    with pytest.raises(ConnectionResetError):
        _connect(proxy).recv(1)
    proxy.wait_for_connections(2)

    proxy.heal()
    with _connect(proxy) as fresh:
        fresh.sendall(b"here")
        assert _read(fresh, 4) == b"here"


@pytest.mark.parametrize("chunk_bytes", [1, 1_000])
def test_reset_in_a_packet_leaves_its_first_half(proxy: Proxy, client: socket.socket, chunk_bytes: int) -> None:
    proxy.down.slice(chunk_bytes)
    proxy.down.reset_in_packet(2, Kind.PUBLISH)

    client.sendall(PINGREQ + PUBLISH + PINGREQ + PUBLISH + PINGREQ)

    assert _read(client, 2 + 133 + 2 + 66) == PINGREQ + PUBLISH + PINGREQ + PUBLISH[:66]
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.down.wait_for_reset()
    assert proxy.down.count(Kind.PUBLISH) == 2


def test_reset_after_so_many_bytes(proxy: Proxy, client: socket.socket) -> None:
    proxy.down.reset_after(150)

    for _ in range(3):
        client.sendall(bytes(100))

    assert _read(client, 150) == bytes(150)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_target_that_is_gone_resets(echo: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Proxy(unused.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError):
            _connect(proxy).recv(1)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 300])
def test_packets_are_found_however_they_come(chunk_bytes: int) -> None:
    data = PINGREQ + PUBLISH + PINGREQ
    reader = PacketReader()

    found = [packet for at in range(0, len(data), chunk_bytes) for packet in reader.feed(data[at : at + chunk_bytes])]

    assert found == [Packet(12, 0, 2), Packet(3, 2, 133), Packet(12, 135, 2)]
