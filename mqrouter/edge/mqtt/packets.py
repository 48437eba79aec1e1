"""Between paho's packets and the daemon's values."""

from __future__ import annotations

import paho.mqtt.client as paho
from paho.mqtt import properties as paho_properties
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqrouter.core.request import Incoming, OutMessage
from mqrouter.core.traces import PROPERTY as TRACE_PROPERTY
from mqrouter.edge.mqtt.options import LinkOptions

# Reason codes of MQTT 5.
UNSUPPORTED_PROTOCOL = frozenset({0x84, 0x01})  # "unsupported protocol version", and 3.1.1's "unacceptable"
NO_MATCHING_SUBSCRIBERS = 0x10
PACKET_TOO_LARGE = 0x95
SESSION_TAKEN_OVER = 0x8E

MAX_PACKET_BYTES = 16 * 1024 * 1024  # above the daemon's own limit: mosquitto drops larger ones without a word
RECEIVE_MAXIMUM_DEFAULT = 65_535
FIXED_PACKET_BYTES = 16  # header, length fields and packet identifier of a PUBLISH, rounded up


def _read_utf(buffer: bytes, length_left: int) -> tuple[str, int]:
    """Reads an MQTT string, whatever its characters; returns it and the bytes it took.

    paho refuses U+FEFF, which the standard allows (MQTT 5, 1.5.4), by raising on every redelivery: one such message
    would keep the gateway from ever receiving another. What is not UTF-8 becomes lone surrogates, which no later
    check lets pass as a topic.
    """
    length = int.from_bytes(buffer[:2], "big")
    if length_left < 2 or length > length_left - 2:
        raise MQTTException("a string is longer than its packet")
    return bytes(buffer[2 : 2 + length]).decode("utf-8", "surrogateescape"), length + 2


paho_properties.readUTF = _read_utf


def connect_properties(options: LinkOptions) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = options.session_expiry_s
    properties.ReceiveMaximum = options.receive_maximum
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def incoming(message: paho.MQTTMessage, epoch: int) -> Incoming:
    """Returns a copy: nothing of paho's is kept."""
    properties = message.properties
    try:
        topic: str | None = message.topic
    except UnicodeDecodeError:
        topic = None
    return Incoming(
        epoch=epoch,
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
        traceparent=dict(reversed(getattr(properties, "UserProperty", []))).get(TRACE_PROPERTY),
    )


def answer_properties(message: OutMessage, now_ms: int) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    properties.ContentType = message.content_type
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = list(message.user_properties)
    if message.expires_at_ms is not None:
        properties.MessageExpiryInterval = max(1, (message.expires_at_ms - now_ms) // 1000)
    return properties


def packet_bytes(message: OutMessage, properties: Properties) -> int:
    """Returns the size of the PUBLISH, or a little more."""
    head = FIXED_PACKET_BYTES + len(message.topic.encode()) + len(properties.pack())  # type: ignore[no-untyped-call]
    return head + len(message.payload)
