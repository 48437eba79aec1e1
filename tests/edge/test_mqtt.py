"""The link's contract, against a broker that speaks raw MQTT over TCP and does as it is told."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog
import trustme

from mqrouter.core.backoff import Backoff
from mqrouter.core.request import Incoming, OutMessage
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.mqtt.options import LinkOptions, TlsFiles
from mqrouter.edge.mqtt.packets import NO_MATCHING_SUBSCRIBERS, PACKET_TOO_LARGE

WAIT_S = 60
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
V5, V311 = 5, 4


# --- the broker's side of the wire --------------------------------------------------------------------


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + variable(len(body)) + body


def variable(number: int) -> bytes:
    out = b""
    while True:
        number, low = divmod(number, 128)
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def publish(
    topic: bytes, payload: bytes, mid: int, *, version: int = V5, properties: bytes = b"", dup: bool = False
) -> bytes:
    head = text(topic) + struct.pack(">H", mid)
    if version == V5:
        head += variable(len(properties)) + properties
    return packet(PUBLISH, 0x2 | (0x8 if dup else 0), head + payload)


def connack(reason: int = 0, properties: bytes = b"", *, version: int = V5) -> bytes:
    return packet(CONNACK, 0, bytes([0, reason]) + (variable(len(properties)) + properties if version == V5 else b""))


@dataclass(frozen=True)
class Packet:
    kind: int
    flags: int
    body: bytes

    @property
    def mid(self) -> int:
        start = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[start : start + 2], "big")


class Peer:
    """One connection of the link, seen from the broker; its packets are read in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def next(self) -> Packet:
        async with asyncio.timeout(WAIT_S):
            first = (await self._reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                size |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    return Packet(first >> 4, first & 0xF, await self._reader.readexactly(size))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def acknowledge(self, mid: int, reason: int | None = None) -> None:
        await self.send(packet(PUBACK, 0, struct.pack(">H", mid) + (b"" if reason is None else bytes([reason, 0]))))

    async def greet(self, answer: bytes | None = None, *, granted: int = 1) -> int:
        """Takes CONNECT and SUBSCRIBE, and acknowledges the status; returns the protocol version."""
        version = await self.connect()
        await self.send(connack(version=version) if answer is None else answer)
        subscribe = await self.next()
        assert subscribe.kind == SUBSCRIBE
        properties = b"\0" if version == V5 else b""
        await self.send(packet(SUBACK, 0, subscribe.body[:2] + properties + bytes([granted])))
        if granted < 0x80:
            online = await self.next()
            assert (online.kind, online.body[-6:]) == (PUBLISH, b"online")
            await self.acknowledge(online.mid)
        return version

    async def connect(self) -> int:
        packet = await self.next()
        assert packet.kind == CONNECT
        return packet.body[6]

    async def read_to_end(self) -> list[Packet]:
        """Returns what still comes until the link closes."""
        found: list[Packet] = []
        try:
            while True:
                found.append(await self.next())
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return found

    def close(self) -> None:
        self._writer.transport.abort()


class ScriptedBroker:
    """Hands each connection to the test."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def serve(self, context: ssl.SSLContext | None) -> int:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._peers.put(Peer(reader, writer))

    async def next(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self._peers.get()

    def close(self) -> None:
        self._server.close()
        while not self._peers.empty():
            self._peers.get_nowait().close()


@dataclass
class Bench:
    """A running link, its broker, and what the link reported."""

    link: MqttLink
    broker: ScriptedBroker
    incoming: asyncio.Queue[Incoming] = field(default_factory=asyncio.Queue)
    published: asyncio.Queue[tuple[int, int]] = field(default_factory=asyncio.Queue)

    async def connected(self) -> Peer:
        """Returns the next connection, greeted and subscribed."""
        peer = await self.broker.next()
        await peer.greet()
        async with asyncio.timeout(WAIT_S):
            await self.link.ready.wait()
        return peer

    async def received(self) -> Incoming:
        async with asyncio.timeout(WAIT_S):
            return await self.incoming.get()

    async def reported(self) -> tuple[int, int]:
        async with asyncio.timeout(WAIT_S):
            while True:
                number, reason = await self.published.get()
                if number != 2:  # the status; SUBSCRIBE had the number before
                    return number, reason


OPTIONS = LinkOptions(
    host="127.0.0.1",
    port=0,
    versions=(V5,),
    client_id="gate",
    username=None,
    password=None,
    tls=None,
    keepalive_s=30,
    connect_timeout_s=3,
    session_expiry_s=60,
    receive_maximum=100,
    reconnect=Backoff(0.01, 0.02),
    filters=("ask/#",),
    optional_filters=("feedback/#",),
    status_topic="status",
)
ANSWER = OutMessage("answer/a", b"yes", b"\x00c", "text/plain", (("mq-id", "1"),))


@asynccontextmanager
async def running(options: LinkOptions = OPTIONS, context: ssl.SSLContext | None = None) -> AsyncIterator[Bench]:
    broker = ScriptedBroker()
    port = await broker.serve(context)
    incoming: asyncio.Queue[Incoming] = asyncio.Queue()
    published: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    link = MqttLink(
        replace(options, port=port),
        on_message=incoming.put_nowait,
        on_published=lambda number, reason: published.put_nowait((number, reason)),
        on_connected=lambda _is_session_present: None,
    )
    task = asyncio.create_task(link.run())
    try:
        yield Bench(link, broker, incoming, published)
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        broker.close()


# --- messages in --------------------------------------------------------------------------------------


async def test_message_is_copied_with_its_properties() -> None:
    properties = b"\x08" + text(b"me/in") + b"\x09" + text(b"\x00\xff") + b"\x03" + text(b"text/plain")
    properties += b"\x02" + struct.pack(">I", 60)
    async with running() as bench:
        peer = await bench.connected()

        await peer.send(publish(b"ask/a", b"why?\x00", 7, properties=properties, dup=True))

        assert await bench.received() == Incoming(
            1, 7, 1, True, False, "ask/a", b"why?\x00", "me/in", b"\x00\xff", "text/plain", 60
        )


async def test_acknowledgement_is_sent_when_asked_for_and_not_before() -> None:
    async with running() as bench:
        peer = await bench.connected()
        await peer.send(publish(b"ask/a", b"one", 7) + publish(b"ask/a", b"two", 8))
        one, two = await bench.received(), await bench.received()
        number = bench.link.publish(ANSWER, 0)

        bench.link.acknowledge(one)
        bench.link.acknowledge(two)

        assert [(p.kind, p.mid) for p in [await peer.next() for _ in range(3)]] == [
            (PUBLISH, number),
            (PUBACK, 7),
            (PUBACK, 8),
        ]


async def test_acknowledgement_of_an_old_connection_is_not_sent() -> None:
    async with running() as bench:
        first = await bench.connected()
        await first.send(publish(b"ask/a", b"old", 7))
        old = await bench.received()
        first.close()
        second = await bench.connected()
        await second.send(publish(b"ask/a", b"another", 7))
        new = await bench.received()
        assert (old.epoch, new.epoch, new.payload) == (1, 2, b"another")

        bench.link.acknowledge(old)
        number = bench.link.publish(ANSWER, 0)
        bench.link.acknowledge(new)

        found = [await second.next(), await second.next()]
        assert [(p.kind, p.mid) for p in found] == [(PUBLISH, number), (PUBACK, 7)]


@pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
async def test_packets_may_come_byte_by_byte(version: int) -> None:
    async with running(replace(OPTIONS, versions=(version,))) as bench:
        peer = await bench.connected()
        data = b"".join(publish(b"ask/a", b"payload %d" % n, n, version=version) for n in range(1, 6))

        for byte in data:
            await peer.send(bytes([byte]))

        assert [(await bench.received()).payload for _ in range(5)] == [b"payload %d" % n for n in range(1, 6)]


async def test_topic_that_is_not_utf8_is_handed_on_without_it() -> None:
    async with running(replace(OPTIONS, versions=(V311,))) as bench:
        peer = await bench.connected()

        await peer.send(publish(b"ask/\xff", b"x", 1, version=V311) + publish(b"ask/a", b"y", 2, version=V311))

        assert [(await bench.received()).topic for _ in range(2)] == [None, "ask/a"]


async def test_malformed_packet_ends_the_connection_and_not_the_link() -> None:
    async with running() as bench:
        peer = await bench.connected()

        await peer.send(publish(b"ask/a", b"x", 1, properties=b"\xfe\x01"))

        await bench.connected()
        assert bench.link.status.connections == 2


# --- answers out --------------------------------------------------------------------------------------


async def test_answer_carries_its_properties_and_its_reason_comes_back() -> None:
    async with running() as bench:
        peer = await bench.connected()

        number = bench.link.publish(replace(ANSWER, expires_at_ms=90_500), 60_000)

        sent = await peer.next()
        assert (sent.kind, sent.flags, sent.mid) == (PUBLISH, 0x2, number)
        for part in (b"\x09" + text(b"\x00c"), b"\x02" + struct.pack(">I", 30), b"\x03" + text(b"text/plain")):
            assert part in sent.body
        assert b"\x26" + text(b"mq-id") + text(b"1") in sent.body
        await peer.acknowledge(sent.mid, NO_MATCHING_SUBSCRIBERS)
        assert await bench.reported() == (number, NO_MATCHING_SUBSCRIBERS)


async def test_window_of_the_broker_is_kept() -> None:
    async with running() as bench:
        peer = await bench.broker.next()
        await peer.greet(connack(properties=b"\x21\x00\x02"))
        await bench.published.get()  # the status has been acknowledged: the window is empty
        numbers = [bench.link.publish(ANSWER, 0) for _ in range(3)]

        assert numbers[2] is None and None not in numbers[:2]

        await peer.acknowledge((await peer.next()).mid)
        assert (await bench.reported())[0] == numbers[0]
        assert bench.link.publish(ANSWER, 0) is not None


async def test_answer_larger_than_the_broker_takes_is_not_sent() -> None:
    async with running() as bench:
        peer = await bench.broker.next()
        await peer.greet(connack(properties=b"\x27" + struct.pack(">I", 1000)))
        await bench.published.get()

        number = bench.link.publish(replace(ANSWER, payload=b"x" * 1000), 0)
        other = bench.link.publish(ANSWER, 0)

        assert await bench.reported() == (number, PACKET_TOO_LARGE)
        assert (await peer.next()).mid == other


async def test_nothing_is_published_while_disconnected() -> None:
    async with running() as bench:
        assert bench.link.publish(ANSWER, 0) is None
        peer = await bench.connected()
        peer.close()
        while bench.link.is_connected:
            await asyncio.sleep(0)

        assert bench.link.publish(ANSWER, 0) is None

        second = await bench.connected()
        number = bench.link.publish(ANSWER, 0)
        assert (await second.next()).mid == number


# --- progress out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
async def test_announcement_goes_at_qos_0_is_not_retained_and_is_nobodys_answer(version: int) -> None:
    async with running(replace(OPTIONS, versions=(version,))) as bench:
        peer = await bench.connected()

        assert bench.link.announce(ANSWER)
        number = bench.link.publish(ANSWER, 0)

        said, sent = await peer.next(), await peer.next()
        assert (said.kind, said.flags) == (PUBLISH, 0)
        assert (text(b"answer/a") in said.body, said.body.endswith(b"yes")) == (True, True)
        assert ((b"\x09" + text(b"\x00c")) in said.body) is (version == V5)
        assert sent.mid == number
        await peer.acknowledge(sent.mid)
        assert (await bench.reported())[0] == number  # and nothing was reported before it


async def test_announcement_takes_no_number_that_an_answer_in_flight_has() -> None:
    """paho would report it as sent under that number, and the answer would count as taken."""
    async with running() as bench:
        peer = await bench.connected()
        number = bench.link.publish(ANSWER, 0)
        assert number is not None
        connection = bench.link._connection
        assert connection is not None
        # 65,535 packets later, and the broker still owes the PUBACK.
        connection._last_number = connection._client._last_mid = number - 1

        assert not bench.link.announce(ANSWER)

        connection._last_number = connection._client._last_mid = number
        assert bench.link.announce(ANSWER)
        await peer.next()
        await peer.acknowledge(number, NO_MATCHING_SUBSCRIBERS)
        assert await bench.reported() == (number, NO_MATCHING_SUBSCRIBERS)


async def test_announcement_is_dropped_where_the_link_takes_no_more() -> None:
    async with running() as bench:
        assert not bench.link.announce(ANSWER)
        peer = await bench.broker.next()
        await peer.greet(connack(properties=b"\x27" + struct.pack(">I", 1000)))
        async with asyncio.timeout(WAIT_S):
            await bench.link.ready.wait()
        assert not bench.link.announce(replace(ANSWER, payload=b"x" * 1000))
        results = [bench.link.announce(ANSWER) for _ in range(200)]
        assert results == sorted(results, reverse=True)
        assert 1 < sum(results) < 200, "what is not written must not pile up"
        for _ in range(sum(results)):
            assert (await peer.next()).kind == PUBLISH
        assert bench.link.announce(ANSWER), "it goes on once the connection takes more"


# --- what the broker keeps ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
async def test_what_is_to_be_kept_goes_at_qos_1_and_retained(version: int) -> None:
    async with running(replace(OPTIONS, versions=(version,))) as bench:
        assert not bench.link.retain(ANSWER)
        peer = await bench.connected()
        assert bench.link.retain(ANSWER)
        sent = await peer.next()
        assert (sent.kind, sent.flags) == (PUBLISH, 0b0011)
        assert sent.body.endswith(b"yes")


async def test_what_is_to_be_kept_takes_no_place_that_an_answer_needs() -> None:
    async with running() as bench:
        peer = await bench.broker.next()
        await peer.greet(connack(properties=b"\x21" + struct.pack(">H", 1)))
        async with asyncio.timeout(WAIT_S):
            await bench.link.ready.wait()
        assert await bench.published.get() == (2, 0)  # the status
        number = bench.link.publish(ANSWER, 0)
        assert number is not None
        assert not bench.link.retain(ANSWER)
        await peer.next()
        await peer.acknowledge(number)
        await bench.reported()
        assert bench.link.retain(ANSWER)


async def test_what_is_too_large_to_be_kept_is_not_sent_again_and_again() -> None:
    async with running() as bench:
        peer = await bench.broker.next()
        await peer.greet(connack(properties=b"\x27" + struct.pack(">I", 1000)))
        async with asyncio.timeout(WAIT_S):
            await bench.link.ready.wait()
        assert bench.link.retain(replace(ANSWER, payload=b"x" * 1000))
        assert bench.link.retain(ANSWER)
        assert (await peer.next()).body.endswith(b"yes")


async def test_refusal_to_keep_something_is_said_once() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running() as bench:
            peer = await bench.connected()
            for _ in range(3):
                assert bench.link.retain(ANSWER)
                number = (await peer.next()).mid
                await peer.acknowledge(number, 0x87)
                assert await bench.reported() == (number, 0x87)
    assert [entry["topic"] for entry in logs if entry["event"] == "mqtt.retained_refused"] == ["answer/a"]


@pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
@pytest.mark.parametrize("is_session_present", [True, False])
async def test_live_filters_are_asked_for_at_qos_0_and_unwanted_ones_are_given_back(
    version: int, is_session_present: bool
) -> None:
    options = replace(OPTIONS, versions=(version,), live_filters=("cmd/all",), unwanted_filters=("old/#",))
    async with running(options) as bench:
        peer = await bench.broker.next()
        await peer.connect()
        body = bytes([is_session_present, 0]) + (b"\0" if version == V5 else b"")
        await peer.send(packet(CONNACK, 0, body))
        if is_session_present:
            unsubscribe = await peer.next()
            assert (unsubscribe.kind, unsubscribe.body.endswith(text(b"old/#"))) == (10, True)
        subscribe = await peer.next()
        assert subscribe.kind == SUBSCRIBE
        asked = {
            name: subscribe.body[subscribe.body.index(text(name)) + len(text(name))] & 0b11
            for name in (b"ask/#", b"feedback/#", b"cmd/all")
        }
        assert asked == {b"ask/#": 1, b"feedback/#": 1, b"cmd/all": 0}
        refused = bytes([1, 1, 0x80])
        await peer.send(packet(SUBACK, 0, subscribe.body[:2] + (b"\0" if version == V5 else b"") + refused))
        assert (await peer.next()).body.endswith(b"online")
        async with asyncio.timeout(WAIT_S):
            await bench.link.ready.wait()


# --- the connection's life ----------------------------------------------------------------------------


async def test_broker_that_stops_answering_pings_is_left() -> None:
    async with running(replace(OPTIONS, keepalive_s=1)) as bench:
        peer = await bench.connected()
        assert (await peer.next()).kind == PINGREQ  # and it gets no answer

        second = await bench.connected()

        await second.send(publish(b"ask/a", b"after", 1))
        assert (await bench.received()).epoch == 2


async def test_polite_end_says_offline_and_disconnects() -> None:
    broker = ScriptedBroker()
    port = await broker.serve(None)
    link = MqttLink(replace(OPTIONS, port=port), on_message=_ignore, on_published=_ignore, on_connected=_ignore)
    task = asyncio.create_task(link.run())
    peer = await broker.next()
    await peer.greet()
    await link.ready.wait()

    await link.close()

    offline, goodbye = await peer.read_to_end()
    assert (offline.kind, offline.flags & 1, offline.body[-7:]) == (PUBLISH, 1, b"offline")
    assert goodbye.kind == DISCONNECT
    async with asyncio.timeout(WAIT_S):
        await task
    broker.close()


def _ignore(*_: object) -> None:
    return None


async def test_taken_over_session_is_left_to_the_other_for_a_while() -> None:
    async with running(replace(OPTIONS, reconnect=Backoff(0.001, 0.6))) as bench:
        peer = await bench.connected()
        taken_s = asyncio.get_running_loop().time()

        await peer.send(packet(DISCONNECT, 0, b"\x8e\x00"))

        await bench.broker.next()
        assert asyncio.get_running_loop().time() - taken_s >= 0.3
        assert bench.link.status.error == ("another client uses the id 'gate': give one of them its own mqtt.client_id")


async def test_refused_subscription_is_said_and_tried_again() -> None:
    async with running() as bench:
        peer = await bench.broker.next()
        await peer.greet(granted=0x87)

        await bench.connected()

        assert bench.link.status.connections == 1


async def test_broker_that_is_stopping_does_not_cost_mqtt_5() -> None:
    async with running(replace(OPTIONS, versions=(V5, V311))) as bench:
        versions: list[int] = []
        for _ in range(2):  # it closes without a word, whatever the version
            peer = await bench.broker.next()
            versions.append(await peer.connect())
            peer.close()

        last = await bench.broker.next()
        versions.append(await last.greet())

        assert versions == [V5, V311, V5]


async def test_version_that_worked_is_tried_first_again() -> None:
    async with running(replace(OPTIONS, versions=(V5, V311))) as bench:
        refused = await bench.broker.next()
        await refused.connect()
        await refused.send(b"\x20\x02\x00\x01")
        old = await bench.connected()
        assert bench.link.status.protocol == "3.1.1"
        old.close()

        again = await bench.broker.next()

        assert await again.greet() == V311


# --- TLS ----------------------------------------------------------------------------------------------


async def test_burst_in_one_tls_record_arrives_whole(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    options = replace(OPTIONS, tls=TlsFiles(tmp_path / "ca.pem", None, None))
    async with running(options, context) as bench:
        peer = await bench.connected()
        data = b"".join(publish(b"ask/a", b"%d" % number, number) for number in range(1, 1001))

        await peer.send(data)  # 13 kB: hundreds of packets in a record

        payloads = [(await bench.received()).payload for _ in range(1000)]
        assert payloads == [b"%d" % number for number in range(1, 1001)]
