"""The link to the broker: paho-mqtt on the daemon's own event loop.

Every connection gets a paho client of its own. So nothing of an old connection can leak into a new one: a late
acknowledgement meets a closed client, unsent packets are gone with it, and falling back to MQTT 3.1.1 is
nothing but another client. The connection's number is the epoch that each incoming message carries.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqrouter.core.backoff import Backoff
from mqrouter.core.request import Incoming, OutMessage
from mqrouter.errors import MqrouterError

log = structlog.get_logger("mqtt")

READS_PER_WAKE = 64  # packets read before other work gets its turn
MAX_PACKET_BYTES = 16 * 1024 * 1024  # above the daemon's own limit: mosquitto drops larger ones without a word
RECEIVE_MAXIMUM_DEFAULT = 65_535
UNSUPPORTED_PROTOCOL = frozenset({0x84, 0x01})  # MQTT 5 "unsupported protocol version", 3.1.1 "unacceptable"
NO_MATCHING_SUBSCRIBERS = 0x10
PACKET_TOO_LARGE = 0x95
SESSION_TAKEN_OVER = 0x8E
GRANTED_QOS_1 = 1


@dataclass(frozen=True, slots=True)
class TlsFiles:
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None


@dataclass(frozen=True, slots=True)
class LinkOptions:
    host: str
    port: int
    versions: tuple[int, ...]
    """paho protocol numbers to try, in order: (5, 4) is `auto`."""
    client_id: str
    username: str | None
    password: str | None
    tls: TlsFiles | None
    keepalive_s: int
    connect_timeout_s: float
    session_expiry_s: int
    receive_maximum: int
    reconnect: Backoff
    filters: tuple[str, ...]
    status_topic: str

    def __repr__(self) -> str:  # the password must not reach a log or a traceback
        return f"LinkOptions({self.host}:{self.port}, client_id={self.client_id!r})"


@dataclass(frozen=True, slots=True)
class LinkStatus:
    is_connected: bool
    protocol: str | None
    error: str | None
    connections: int


class ConnectionFailedError(MqrouterError):
    """Try again later: the broker cannot be reached, or refused; `is_wrong_version` says to try the other protocol."""

    def __init__(self, message: str, *, is_wrong_version: bool = False) -> None:
        super().__init__(message)
        self.is_wrong_version = is_wrong_version


class MqttLink:
    """Keeps one subscribed connection up, and hands on what arrives.

    `on_message(incoming)`, `on_published(number, reason code)` and `on_connected()` run on the event loop.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        on_message: Callable[[Incoming], None],
        on_published: Callable[[int, int], None],
        on_connected: Callable[[], None],
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_published = on_published
        self._on_connected = on_connected
        self._connection: _Connection | None = None
        self._versions = list(options.versions)
        self._epoch = 0
        self._error: str | None = None
        self._is_stopping = False
        self.ready = asyncio.Event()
        """Set while connected and subscribed."""

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_subscribed

    @property
    def status(self) -> LinkStatus:
        connection = self._connection if self.is_connected else None
        protocol = None if connection is None else _version_name(connection.version)
        return LinkStatus(self.is_connected, protocol, self._error, self._epoch)

    @property
    def max_in_flight(self) -> int:
        """How many answers the broker takes at once before it has acknowledged one."""
        return self._connection.server_receive_maximum if self._connection else RECEIVE_MAXIMUM_DEFAULT

    def acknowledge(self, incoming: Incoming) -> None:
        connection = self._connection
        if incoming.qos == 0 or connection is None or connection.epoch != incoming.epoch:
            return  # the broker delivers it again on the new connection
        connection.acknowledge(incoming.mid, incoming.qos)

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        connection = self._connection
        if connection is None or not connection.is_subscribed:
            return None
        return connection.publish(message, now_ms)

    async def run(self) -> None:
        """Connects, and connects again with full jitter, until `close`."""
        failures = 0
        while not self._is_stopping:
            try:
                await self._connect_once()
                failures = 0
                assert self._connection is not None
                self._error = await self._connection.lost
                log.warning("mqtt.connection_lost", error=self._error)
            except ConnectionFailedError as error:
                self._error = str(error)
                if error.is_wrong_version and len(self._versions) > 1:
                    refused = self._versions.pop(0)
                    log.info("mqtt.protocol_fell_back", refused=_version_name(refused), error=str(error))
                    continue
                log.warning("mqtt.connect_failed", error=str(error), host=self._options.host, port=self._options.port)
            finally:
                self.ready.clear()
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if not self._is_stopping:
                failures += 1
                # A floor under the jitter: a broker that accepts and drops us must not be hammered.
                await asyncio.sleep(0.05 + self._options.reconnect.delay_s(failures, random.random()))

    async def close(self) -> None:
        """Says `offline` and disconnects politely; `run` then returns."""
        self._is_stopping = True
        if self._connection is not None:
            await self._connection.say_goodbye()

    async def _connect_once(self) -> None:
        self._epoch += 1
        connection = _Connection(self._options, self._versions[0], self._epoch, self._on_message, self._on_published)
        self._connection = connection
        await connection.open()
        self._error = None
        log.info(
            "mqtt.connected",
            host=self._options.host,
            port=self._options.port,
            protocol=_version_name(connection.version),
            session_present=connection.is_session_present,
        )
        self.ready.set()
        self._on_connected()


class _Connection:
    """One TCP connection and the paho client that lives and dies with it."""

    def __init__(
        self,
        options: LinkOptions,
        version: int,
        epoch: int,
        on_message: Callable[[Incoming], None],
        on_published: Callable[[int, int], None],
    ) -> None:
        self.version = version
        self.epoch = epoch
        self.is_subscribed = False
        self.is_session_present = False
        self.server_receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        self._options = options
        self._on_message = on_message
        self._on_published = on_published
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self._suback: asyncio.Future[None] = self._loop.create_future()
        for future in (self._connack, self._suback):  # a failed one may never be waited for
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._socket: socket.socket | None = None
        self._is_attached = False
        self._received = 0
        self._client = self._build_client()

    def _build_client(self) -> paho.Client:
        options = self._options
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTProtocolVersion(self.version),
            clean_session=None if self.version == paho.MQTTv5 else False,
            manual_ack=True,
        )
        client.suppress_exceptions = True  # an exception would make paho dispatch the same packet again
        client.max_inflight_messages_set(0)  # the deliver stage holds the window
        client.connect_timeout = options.connect_timeout_s
        if options.username is not None:
            client.username_pw_set(options.username, options.password)
        if options.tls is not None:
            client.tls_set_context(tls_context(options.tls))
        client.will_set(options.status_topic, b"offline", qos=1, retain=True)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.on_publish = self._published
        client.on_disconnect = self._disconnected
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._written
        return client

    async def open(self) -> None:
        """The connection is subscribed. Raises ConnectionFailedError."""
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                # Name look-up, TCP and TLS block: they belong on another thread.
                await self._loop.run_in_executor(None, self._connect)
                self._attach()
                await self._connack
                self._subscribe()
                await self._suback
        except TimeoutError as error:
            raise ConnectionFailedError(f"no answer within {self._options.connect_timeout_s:g} s") from error
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConnectionFailedError(f"{type(error).__name__}: {error}") from error
        self.is_subscribed = True
        self._client.publish(self._options.status_topic, b"online", qos=1, retain=True)

    def _connect(self) -> None:
        options = self._options
        if self.version == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = options.session_expiry_s
            properties.ReceiveMaximum = options.receive_maximum
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            self._client.connect(
                options.host, options.port, options.keepalive_s, clean_start=False, properties=properties
            )
        else:
            self._client.connect(options.host, options.port, options.keepalive_s)

    def _attach(self) -> None:
        """From here on the event loop reads and writes the socket."""
        self._socket = self._client.socket()  # type: ignore[assignment]
        if self._socket is None:
            raise ConnectionFailedError("the connection was closed at once")
        self._is_attached = True
        self._loop.add_reader(self._socket, self._read)
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._client.loop_write)
        self._timer = self._loop.call_later(1.0, self._tick)

    def _subscribe(self) -> None:
        if self.version == paho.MQTTv5:
            options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            self._client.subscribe([(name, options) for name in self._options.filters])
        else:
            self._client.subscribe([(name, 1) for name in self._options.filters])

    # --- event loop ---------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(READS_PER_WAKE):
            before = self._received
            if self._client.loop_read() != paho.MQTT_ERR_SUCCESS or not self._is_attached:
                return
            # TLS may hold decrypted packets that no selector will announce.
            pending = getattr(self._socket, "pending", None)
            if self._received == before and not (pending is not None and pending()):
                return

    def _want_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        # During connect this runs on the executor's thread; `_attach` catches up on the loop's own.
        if self._is_attached and self._socket is not None:
            self._loop.add_writer(self._socket, self._client.loop_write)

    def _written(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self._is_attached and self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _tick(self) -> None:
        self._client.loop_misc()
        if self._is_attached:
            self._timer = self._loop.call_later(1.0, self._tick)

    # --- paho's callbacks: copy, and return ---------------------------------------------------------

    def _connected(self, _c: Any, _d: Any, flags: paho.ConnectFlags, reason: ReasonCode, properties: Any) -> None:
        if self._connack.done():
            return
        if reason.is_failure:
            is_wrong_version = reason.value in UNSUPPORTED_PROTOCOL or "protocol version" in str(reason).lower()
            self._connack.set_exception(
                ConnectionFailedError(f"the broker refused: {reason}", is_wrong_version=is_wrong_version)
            )
            return
        self.is_session_present = flags.session_present
        self.server_receive_maximum = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        self._connack.set_result(None)

    def _subscribed(self, _c: Any, _d: Any, _mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        if self._suback.done():
            return
        refused = [name for name, reason in zip(self._options.filters, reasons, strict=False) if reason.is_failure]
        if refused:
            self._suback.set_exception(ConnectionFailedError(f"the broker refused to subscribe {', '.join(refused)}"))
        else:
            self._suback.set_result(None)

    def _message(self, _c: Any, _d: Any, message: paho.MQTTMessage) -> None:
        self._received += 1
        properties = message.properties
        try:
            topic: str | None = message.topic
        except UnicodeDecodeError:
            topic = None
        self._on_message(
            Incoming(
                epoch=self.epoch,
                mid=message.mid,
                qos=message.qos,
                is_dup=bool(message.dup),
                is_retained=bool(message.retain),
                topic=topic,
                payload=bytes(message.payload),
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                content_type=getattr(properties, "ContentType", None),
                expiry_s=getattr(properties, "MessageExpiryInterval", None),
            )
        )

    def _published(self, _c: Any, _d: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._received += 1
        self._on_published(mid, reason.value)

    def _disconnected(self, _c: Any, _d: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._end, reason)

    def _end(self, reason: ReasonCode) -> None:
        text = str(reason)
        if reason.value == SESSION_TAKEN_OVER:
            text = f"another client uses the id {self._options.client_id!r}: give one of them its own mqtt.client_id"
        is_wrong_version = reason.value in UNSUPPORTED_PROTOCOL
        # A broker that knows no MQTT 5 may answer the CONNECT by closing the connection.
        is_silent_refusal = self.version == paho.MQTTv5 and not self._connack.done()
        error = ConnectionFailedError(
            f"the broker closed the connection: {text}", is_wrong_version=is_wrong_version or is_silent_refusal
        )
        for future in (self._connack, self._suback):
            if not future.done():
                future.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(text)
        self.close()

    # --- sending ------------------------------------------------------------------------------------

    def acknowledge(self, mid: int, qos: int) -> None:
        if self._is_attached:
            self._client.ack(mid, qos)

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        properties = _answer_properties(message, now_ms) if self.version == paho.MQTTv5 else None
        info = self._client.publish(message.topic, message.payload, qos=1, properties=properties)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    async def say_goodbye(self) -> None:
        """The retained status says `offline`, and the broker knows that we meant to go."""
        if not self.is_subscribed or not self._is_attached:
            self.close()
            return
        self._client.publish(self._options.status_topic, b"offline", qos=1, retain=True)
        self._client.disconnect()
        try:
            async with asyncio.timeout(1.0):
                await asyncio.shield(self.lost)
        except TimeoutError:
            self.close()

    def close(self) -> None:
        """Nothing is read or written any more. May be called again."""
        self.is_subscribed = False
        if self._is_attached and self._socket is not None:
            self._is_attached = False
            self._timer.cancel()
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        if not self.lost.done():
            self.lost.set_result("closed")


def _answer_properties(message: OutMessage, now_ms: int) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    properties.ContentType = message.content_type
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = list(message.user_properties)
    if message.expires_at_ms is not None:
        properties.MessageExpiryInterval = max(1, (message.expires_at_ms - now_ms) // 1000)
    return properties


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file)
    if files.cert_file is not None:
        context.load_cert_chain(files.cert_file, files.key_file)
    return context


def _version_name(version: int) -> str:
    return "5" if version == paho.MQTTv5 else "3.1.1"
