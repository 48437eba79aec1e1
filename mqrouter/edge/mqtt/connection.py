"""One connection to the broker, from CONNECT to its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqrouter.core.request import Incoming, OutMessage
from mqrouter.edge.mqtt.options import LinkOptions, tls_context
from mqrouter.edge.mqtt.packets import (
    PACKET_TOO_LARGE,
    RECEIVE_MAXIMUM_DEFAULT,
    SESSION_TAKEN_OVER,
    UNSUPPORTED_PROTOCOL,
    answer_properties,
    connect_properties,
    incoming,
    packet_bytes,
)
from mqrouter.edge.mqtt.wire import BlockClient, ConnectionFailedError, Wire

log = structlog.get_logger("mqtt")

MAX_NUMBER = 65_535  # of a packet
MAX_UNWRITTEN = 64  # messages at QoS 0: a broker that does not read must not fill our memory
END_TEXTS = {  # paho's words for an end that the broker gave no reason for
    "Unspecified error": "it broke off",
    "Keep alive timeout": "no sign of life from the broker",
}


class Connection:
    """One TCP connection and the paho client that lives and dies with it."""

    def __init__(
        self,
        options: LinkOptions,
        version: int,
        epoch: int,
        on_message: Callable[[Incoming], None],
        on_published: Callable[[int, int], None],
        *,
        is_trial: bool = False,
    ) -> None:
        """`is_trial`: only to be greeted, without a session and without a will."""
        self.version = version
        self.epoch = epoch
        self.is_subscribed = False
        self.is_session_present = False
        self.was_taken_over = False
        """True where the broker said so."""
        self.was_closed = False
        """True where the broker closed the connection without a word, as mosquitto does to the older of two."""
        self._receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        self._maximum_packet_bytes: int | None = None
        self._unacknowledged: set[int] = set()
        self._unsent = 0
        self._last_number = 0
        self._unwritten = 0
        """Messages at QoS 0 that paho has not yet written."""
        self._retained: dict[int, str] = {}
        """Topics of what is to be retained, by packet, until the broker has it."""
        self._not_kept: set[str] = set()
        self._options = options
        self._on_message = on_message
        self._on_published = on_published
        self.loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self.loop.create_future()
        self._connack: asyncio.Future[None] = self.loop.create_future()
        self._suback: asyncio.Future[None] = self.loop.create_future()
        for future in (self._connack, self._suback):  # a failed one may never be waited for
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.is_greeted = False
        self._is_trial = is_trial
        self._paho_error = ""
        self._client = self._build_client()
        self._wire = Wire(self._client, self._break_off)

    def _build_client(self) -> BlockClient:
        options = self._options
        client = BlockClient(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=MQTTProtocolVersion(self.version),
            clean_session=None if self.version == paho.MQTTv5 else self._is_trial,
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
        if not self._is_trial:
            client.will_set(options.status_topic, b"offline", qos=1, retain=True)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.on_publish = self._published
        client.on_disconnect = self._disconnected
        client.on_log = self._logged  # until connected: then it would cost time with every packet
        return client

    async def open(self) -> None:
        """The connection is subscribed. Raises ConnectionFailedError."""
        await self._make(self._be_subscribed)
        self.is_subscribed = True
        self._send(self._options.status_topic, b"online", is_retained=True)

    async def greet(self) -> None:
        """The broker has let us in. Raises ConnectionFailedError."""
        await self._make(self._be_greeted)

    async def _be_greeted(self) -> None:
        await self._wire.open(self._connect)
        await self._connack

    async def _be_subscribed(self) -> None:
        await self._be_greeted()
        self._subscribe()
        await self._suback

    async def _make(self, steps: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await steps()
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"no answer within {self._options.connect_timeout_s:g} s",
                is_silent=self._wire.is_attached and self._is_unanswered_5,
            ) from error
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConnectionFailedError(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> None:
        options = self._options
        if self.version == paho.MQTTv5:
            self._client.connect(
                options.host,
                options.port,
                options.keepalive_s,
                clean_start=self._is_trial,
                properties=None if self._is_trial else connect_properties(options),
            )
        else:
            self._client.connect(options.host, options.port, options.keepalive_s)

    @property
    def _filters(self) -> tuple[str, ...]:
        return (*self._options.filters, *self._options.optional_filters, *self._options.live_filters)

    def _qos(self, name: str) -> int:
        return 0 if name in self._options.live_filters else 1

    def _subscribe(self) -> None:
        if self.is_session_present and self._options.unwanted_filters:
            self._client.unsubscribe(list(self._options.unwanted_filters))
        if self.version == paho.MQTTv5:
            self._client.subscribe([(name, _subscription(self._qos(name))) for name in self._filters])
        else:
            self._client.subscribe([(name, self._qos(name)) for name in self._filters])

    # --- paho's callbacks: copy, and return ---------------------------------------------------------

    def _connected(self, _c: Any, _d: Any, flags: paho.ConnectFlags, reason: ReasonCode, properties: Any) -> None:
        self.is_greeted = True
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
        granted = list(zip(self._filters, reasons, strict=False))
        refused = [name for name, reason in granted if reason.is_failure and name in self._options.filters]
        if refused:
            self._suback.set_exception(ConnectionFailedError(f"the broker refused to subscribe {', '.join(refused)}"))
            return
        if lacking := [name for name, reason in granted if reason.is_failure]:
            log.warning("mqtt.subscription_refused", filters=lacking)
        if reduced := [name for name, reason in granted if reason.value < self._qos(name)]:
            log.warning("mqtt.subscribed_at_qos_0", filters=reduced)  # what comes in while we are away is lost
        self._suback.set_result(None)

    def _message(self, _c: Any, _d: Any, message: paho.MQTTMessage) -> None:
        self._on_message(incoming(message, self.epoch))

    def _published(self, _c: Any, _d: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        if mid not in self._unacknowledged:  # written at QoS 0: paho says so, and nobody has answered
            self._unwritten = max(0, self._unwritten - 1)
            return
        self._unacknowledged.discard(mid)
        topic = self._retained.pop(mid, None)
        if topic is not None and reason.is_failure and topic not in self._not_kept:
            self._not_kept.add(topic)  # said once: it is tried again all the time
            log.warning("mqtt.retained_refused", topic=topic, reason=str(reason))
        self._on_published(mid, reason.value)

    def _logged(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:  # the only place where paho says what TLS said
            self._paho_error = text

    def _disconnected(self, _c: Any, _d: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self._end, reason)

    # --- sending ------------------------------------------------------------------------------------

    def acknowledge(self, mid: int, qos: int) -> None:
        if self._wire.is_attached:
            self._client.ack(mid, qos)

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        if len(self._unacknowledged) >= self._receive_maximum:
            return None
        properties = answer_properties(message, now_ms) if self.version == paho.MQTTv5 else None
        if self._is_too_large(message, properties):
            self._unsent -= 1  # paho's numbers start at one
            self.loop.call_soon(self._on_published, self._unsent, PACKET_TOO_LARGE)
            return self._unsent
        return self._send(message.topic, message.payload, properties=properties)

    def announce(self, message: OutMessage) -> bool:
        """Sends at QoS 0, or not at all: nothing of it is kept for later."""
        properties = answer_properties(message, 0) if self.version == paho.MQTTv5 else None
        following = self._last_number % MAX_NUMBER + 1  # paho numbers these too, and looks at nothing in flight
        is_congested = self._unwritten >= MAX_UNWRITTEN
        if is_congested or following in self._unacknowledged or self._is_too_large(message, properties):
            return False
        info = self._client.publish(message.topic, message.payload, qos=0, properties=properties)
        self._last_number = info.mid
        self._unwritten += info.rc == paho.MQTT_ERR_SUCCESS
        return info.rc == paho.MQTT_ERR_SUCCESS

    def retain(self, message: OutMessage) -> bool:
        """Sends at QoS 1, to be kept by the broker; False where the answers in flight leave no room."""
        properties = answer_properties(message, 0) if self.version == paho.MQTTv5 else None
        if self._is_too_large(message, properties):
            log.warning("mqtt.retained_too_large", topic=message.topic, bytes=len(message.payload))
            return True  # it would not get smaller
        following = self._last_number % MAX_NUMBER + 1
        if len(self._unacknowledged) >= self._receive_maximum or following in self._unacknowledged:
            return False
        number = self._send(message.topic, message.payload, properties=properties, is_retained=True)
        if number is not None:
            self._retained[number] = message.topic
        return number is not None

    def _is_too_large(self, message: OutMessage, properties: Properties | None) -> bool:
        if self._maximum_packet_bytes is None or properties is None:
            return False
        return packet_bytes(message, properties) > self._maximum_packet_bytes

    def _send(
        self, topic: str, payload: bytes, *, properties: Properties | None = None, is_retained: bool = False
    ) -> int | None:
        info = self._client.publish(topic, payload, qos=1, retain=is_retained, properties=properties)
        self._last_number = info.mid
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return None
        self._unacknowledged.add(info.mid)
        return info.mid

    # --- the end ------------------------------------------------------------------------------------

    async def say_goodbye(self) -> None:
        """The retained status says `offline`, and the broker knows that we meant to go."""
        if not self.is_subscribed or not self._wire.is_attached:
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
        self._wire.close()
        if not self.lost.done():
            self.lost.set_result("closed")

    def _end(self, reason: ReasonCode) -> None:
        self.was_taken_over = reason.value == SESSION_TAKEN_OVER
        self.was_closed = self._wire.is_at_end
        if self.was_taken_over:
            text = f"another client uses the id {self._options.client_id!r}: give one of them its own mqtt.client_id"
        else:
            text = f"the connection ended: {self._paho_error or END_TEXTS.get(str(reason), reason)}"
        self._fail(text, is_wrong_version=reason.value in UNSUPPORTED_PROTOCOL)

    def _break_off(self, error: Exception) -> None:
        log.error("mqtt.protocol_error", error=f"{type(error).__name__}: {error}")
        self._fail(f"protocol error: {type(error).__name__}: {error}", is_wrong_version=False)

    def _fail(self, text: str, *, is_wrong_version: bool) -> None:
        error = ConnectionFailedError(text, is_wrong_version=is_wrong_version, is_silent=self._is_unanswered_5)
        for future in (self._connack, self._suback):
            if not future.done():
                future.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(text)
        self.close()

    @property
    def _is_unanswered_5(self) -> bool:
        """True where a CONNECT of MQTT 5 got no answer: brokers that do not know it close, or keep silent."""
        return self.version == paho.MQTTv5 and not self.is_greeted


def _subscription(qos: int) -> SubscribeOptions:
    return SubscribeOptions(qos=qos, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
