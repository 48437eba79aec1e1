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
import threading
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
STABLE_S = 5.0  # a connection that ends sooner counts as one more failure
UNSUPPORTED_PROTOCOL = frozenset({0x84, 0x01})  # MQTT 5 "unsupported protocol version", 3.1.1 "unacceptable"
NO_MATCHING_SUBSCRIBERS = 0x10
PACKET_TOO_LARGE = 0x95
SESSION_TAKEN_OVER = 0x8E
GRANTED_QOS_1 = 1
FIXED_PACKET_BYTES = 16  # header, length fields and packet identifier of a PUBLISH, rounded up


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
    """Try again later: the broker cannot be reached, or refused; `is_wrong_version` says to try the next protocol."""

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
        self._version = 0
        """Index of the protocol tried next. It goes back to the first one after any failure: a broker that is about to
        stop may have closed on us, or kept silent, for no fault of MQTT 5's."""
        self._epoch = 0
        self._connections = 0
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
        return LinkStatus(self.is_connected, protocol, self._error, self._connections)

    def acknowledge(self, incoming: Incoming) -> None:
        connection = self._connection
        if incoming.qos == 0 or connection is None or connection.epoch != incoming.epoch:
            return  # the broker delivers it again on the new connection
        connection.acknowledge(incoming.mid, incoming.qos)

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        """Sends at QoS 1 and returns the packet's number; None while disconnected or while the broker's window is full.

        A message larger than the broker takes is reported to `on_published` as PACKET_TOO_LARGE, and not sent: the
        broker would close the connection over it.
        """
        connection = self._connection
        if connection is None or not connection.is_subscribed:
            return None
        return connection.publish(message, now_ms)

    async def run(self) -> None:
        """Connects, and connects again with full jitter, until `close`."""
        failures = 0
        while not self._is_stopping:
            was_taken_over = False
            try:
                connection = await self._connect_once()
                connected_s = connection.loop.time()
                self._error = await connection.lost
                was_taken_over = connection.was_taken_over
                if connection.loop.time() - connected_s >= STABLE_S:
                    failures = 0
                elif failures and not was_taken_over:  # mosquitto closes the older connection without a word
                    self._error += f"; another client may be using the id {self._options.client_id!r}"
                if not self._is_stopping:
                    log.warning("mqtt.connection_lost", error=self._error)
            except ConnectionFailedError as error:
                self._error = str(error)
                if error.is_wrong_version and self._version + 1 < len(self._options.versions):
                    refused = _version_name(self._options.versions[self._version])
                    self._version += 1
                    log.info("mqtt.protocol_fell_back", refused=refused, error=str(error))
                    continue
                log.warning("mqtt.connect_failed", error=str(error), host=self._options.host, port=self._options.port)
                self._version = 0
            finally:
                self.ready.clear()
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if not self._is_stopping:
                failures += 1
                await asyncio.sleep(self._pause_s(failures, was_taken_over))

    def _pause_s(self, failures: int, was_taken_over: bool) -> float:
        if was_taken_over:  # two clients that take one id from each other in turn would keep both from working
            return self._options.reconnect.max_s * (0.5 + 0.5 * random.random())
        # A floor under the jitter: a broker that accepts and drops us must not be hammered.
        return 0.05 + self._options.reconnect.delay_s(failures, random.random())

    async def close(self) -> None:
        """Says `offline` and disconnects politely; `run` then returns."""
        self._is_stopping = True
        if self._connection is not None:
            await self._connection.say_goodbye()

    async def _connect_once(self) -> _Connection:
        self._epoch += 1
        version = self._options.versions[self._version]
        connection = _Connection(self._options, version, self._epoch, self._on_message, self._on_published)
        self._connection = connection
        await connection.open()
        self._connections += 1
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
        return connection


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
        self.was_taken_over = False
        self._receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        self._maximum_packet_bytes: int | None = None
        self._unacknowledged: set[int] = set()
        self._unsent = 0
        self._options = options
        self._on_message = on_message
        self._on_published = on_published
        self.loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self.loop.create_future()
        self._connack: asyncio.Future[None] = self.loop.create_future()
        self._suback: asyncio.Future[None] = self.loop.create_future()
        for future in (self._connack, self._suback):  # a failed one may never be waited for
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._socket: socket.socket | None = None
        self._is_attached = False
        self._is_closed = False
        self._is_greeted = False
        self._paho_error = ""
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
            reconnect_on_failure=False,  # paho would block the loop to try MQTT 3.1
        )
        client.suppress_exceptions = True  # an exception would make paho dispatch the same packet again
        client.max_inflight_messages_set(0)  # the deliver stage holds the window
        client.connect_timeout = options.connect_timeout_s
        if options.username is not None:
            client.username_pw_set(options.username, options.password)
        if options.tls is not None:
            try:
                client.tls_set_context(tls_context(options.tls))
            except (OSError, ValueError) as error:
                files = (options.tls.ca_file, options.tls.cert_file, options.tls.key_file)
                names = ", ".join(str(file) for file in files if file is not None)
                raise ConnectionFailedError(f"mqtt.tls: cannot use {names}: {error}") from error
        client.will_set(options.status_topic, b"offline", qos=1, retain=True)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.on_publish = self._published
        client.on_disconnect = self._disconnected
        client.on_log = self._logged  # until connected: then it would cost time with every packet
        client.on_socket_open = self._opened
        client.on_socket_close = self._closed
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._written
        return client

    async def open(self) -> None:
        """The connection is subscribed. Raises ConnectionFailedError."""
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._in_thread(self._connect)
                self._attach()
                await self._connack
                self._subscribe()
                await self._suback
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"no answer within {self._options.connect_timeout_s:g} s",
                is_wrong_version=self._is_attached and self._is_unwanted_5,
            ) from error
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConnectionFailedError(f"{type(error).__name__}: {error}") from error
        self.is_subscribed = True
        self._send(self._options.status_topic, b"online", is_retained=True)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Name look-up, TCP and TLS block. Not the loop's executor: the process would wait for it at its end."""
        done: asyncio.Future[None] = self.loop.create_future()

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
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(end, error)

        threading.Thread(target=run, name="mqtt.connect", daemon=True).start()
        await done

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
        self.loop.add_reader(self._socket, self._read)
        if self._client.want_write():
            self.loop.add_writer(self._socket, self._write)
        self._timer = self.loop.call_later(1.0, self._tick)

    def _subscribe(self) -> None:
        if self.version == paho.MQTTv5:
            options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            self._client.subscribe([(name, options) for name in self._options.filters])
        else:
            self._client.subscribe([(name, 1) for name in self._options.filters])

    # --- event loop ---------------------------------------------------------------------------------

    def _read(self) -> None:
        if not self._is_attached:
            return
        try:
            self._read_some()
        except Exception as error:  # paho raises what a malformed packet makes it raise
            self._break_off(error)

    def _read_some(self) -> None:
        for _ in range(READS_PER_WAKE):
            before = self._received
            if self._client.loop_read() != paho.MQTT_ERR_SUCCESS or not self._is_attached:
                return
            if self._received == before and not self._has_pending():
                return
        if self._has_pending():
            self.loop.call_soon(self._read)

    def _has_pending(self) -> bool:
        """True where TLS holds decrypted bytes: no selector will announce them."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and bool(pending())

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:
            self._break_off(error)

    def _break_off(self, error: Exception) -> None:
        log.error("mqtt.protocol_error", error=f"{type(error).__name__}: {error}")
        self._fail(f"protocol error: {type(error).__name__}: {error}", is_wrong_version=False)

    def _want_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        # During connect this runs on the connecting thread; `_attach` catches up on the loop's own.
        if self._is_attached and self._socket is not None:
            self.loop.add_writer(self._socket, self._write)

    def _written(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self._is_attached and self._socket is not None:
            self.loop.remove_writer(self._socket)

    def _opened(self, _client: Any, _data: Any, opened: Any) -> None:
        if self._is_closed:  # too late: a CONNECT now would take the session from our next connection
            opened.close()
        else:  # an answer must not wait for the broker's TCP to acknowledge our PUBACK
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _closed(self, _client: Any, _data: Any, _socket: Any) -> None:
        self._detach()  # before paho closes it: the number may soon be another socket's

    def _tick(self) -> None:
        try:
            self._client.loop_misc()
        except Exception as error:
            self._break_off(error)
        if self._is_attached:
            self._timer = self.loop.call_later(1.0, self._tick)

    # --- paho's callbacks: copy, and return ---------------------------------------------------------

    def _connected(self, _c: Any, _d: Any, flags: paho.ConnectFlags, reason: ReasonCode, properties: Any) -> None:
        self._is_greeted = True
        self._client.on_log = None
        if self._connack.done():
            return
        if reason.is_failure:
            is_wrong_version = reason.value in UNSUPPORTED_PROTOCOL or "protocol version" in str(reason).lower()
            self._connack.set_exception(
                ConnectionFailedError(f"the broker refused: {reason}", is_wrong_version=is_wrong_version)
            )
            return
        self.is_session_present = flags.session_present
        self._receive_maximum = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        self._maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._connack.set_result(None)

    def _subscribed(self, _c: Any, _d: Any, _mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        if self._suback.done():
            return
        granted = list(zip(self._options.filters, reasons, strict=False))
        refused = [name for name, reason in granted if reason.is_failure]
        if refused:
            self._suback.set_exception(ConnectionFailedError(f"the broker refused to subscribe {', '.join(refused)}"))
            return
        if reduced := [name for name, reason in granted if reason.value < GRANTED_QOS_1]:
            log.warning("mqtt.subscribed_at_qos_0", filters=reduced)  # what comes in while we are away is lost
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
        self._unacknowledged.discard(mid)
        self._on_published(mid, reason.value)

    def _disconnected(self, _c: Any, _d: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self._end, reason)

    def _end(self, reason: ReasonCode) -> None:
        self.was_taken_over = reason.value == SESSION_TAKEN_OVER
        if self.was_taken_over:
            text = f"another client uses the id {self._options.client_id!r}: give one of them its own mqtt.client_id"
        else:
            text = f"the connection ended: {self._paho_error or _END_TEXTS.get(str(reason), reason)}"
        self._fail(text, is_wrong_version=reason.value in UNSUPPORTED_PROTOCOL or self._is_unwanted_5)

    @property
    def _is_unwanted_5(self) -> bool:
        """True where a CONNECT of MQTT 5 got no answer: brokers that do not know it close, or keep silent."""
        return self.version == paho.MQTTv5 and not self._is_greeted

    def _logged(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:  # the only place where paho says what TLS said
            self._paho_error = text

    def _fail(self, text: str, *, is_wrong_version: bool) -> None:
        error = ConnectionFailedError(text, is_wrong_version=is_wrong_version)
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
        if len(self._unacknowledged) >= self._receive_maximum:
            return None
        properties = _answer_properties(message, now_ms) if self.version == paho.MQTTv5 else None
        if self._is_too_large(message, properties):
            self._unsent -= 1  # paho's numbers start at one
            self.loop.call_soon(self._on_published, self._unsent, PACKET_TOO_LARGE)
            return self._unsent
        return self._send(message.topic, message.payload, properties=properties)

    def _is_too_large(self, message: OutMessage, properties: Properties | None) -> bool:
        if self._maximum_packet_bytes is None or properties is None:
            return False
        head = FIXED_PACKET_BYTES + len(message.topic.encode()) + len(properties.pack())  # type: ignore[no-untyped-call]
        return head + len(message.payload) > self._maximum_packet_bytes

    def _send(
        self, topic: str, payload: bytes, *, properties: Properties | None = None, is_retained: bool = False
    ) -> int | None:
        info = self._client.publish(topic, payload, qos=1, retain=is_retained, properties=properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return None
        self._unacknowledged.add(info.mid)
        return info.mid

    async def say_goodbye(self) -> None:
        """The retained status says `offline`, and the broker knows that we meant to go."""
        if not self.is_subscribed or not self._is_attached:
            self.close()
            return
        self._send(self._options.status_topic, b"offline", is_retained=True)
        self._client.disconnect()
        try:
            async with asyncio.timeout(1.0):
                await asyncio.shield(self.lost)
        except TimeoutError:
            self.close()

    def close(self) -> None:
        """Nothing is read or written any more. May be called again."""
        self.is_subscribed = False
        self._is_closed = True
        self._detach()
        opened = self._client.socket()
        if opened is not None:
            opened.close()
        if not self.lost.done():
            self.lost.set_result("closed")

    def _detach(self) -> None:
        if self._is_attached and self._socket is not None:
            self._is_attached = False
            self._timer.cancel()
            self.loop.remove_reader(self._socket)
            self.loop.remove_writer(self._socket)


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


_END_TEXTS = {  # paho's words for an end that the broker gave no reason for
    "Unspecified error": "it broke off",
    "Keep alive timeout": "no sign of life from the broker",
}
