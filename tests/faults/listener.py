"""Hears every answer, on a connection of its own that outlives the broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from harness import WAIT_S, Message, Signal
from ledger import Key
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


class Listener:
    """One MQTT 5 connection that comes back, keeps its session, and hears these filters."""

    def __init__(self, port: int, client_id: str, filters: Sequence[str]) -> None:
        self.messages: list[Message] = []
        self.keys: set[Key] = set()
        """Of the terminal answers heard."""
        self.heard = Signal()
        self._options = [(name, SubscribeOptions(1)) for name in filters]
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._message
        self._client.reconnect_delay_set(1, 1)
        kept = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        kept.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=kept)
        self._client.loop_start()
        assert self._subscribed.wait(WAIT_S), "the broker did not let the oracle listen"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: paho.Client, *_: object) -> None:
        client.subscribe(self._options)

    def _message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        heard = Message(
            message.topic,
            bytes(message.payload),
            message.qos,
            message.retain,
            getattr(properties, "CorrelationData", None),
            getattr(properties, "ContentType", None),
            getattr(properties, "MessageExpiryInterval", None),
            dict(getattr(properties, "UserProperty", [])),
        )
        self.heard.give(lambda: self._keep(heard))

    def _keep(self, message: Message) -> None:
        self.messages.append(message)
        if not is_provisional(message):
            self.keys.add(key_of(message))


def key_of(message: Message) -> Key:
    return message.topic, message.correlation


def is_provisional(message: Message) -> bool:
    """True for an answer that a terminal one follows."""
    return message.properties.get("mq-status") == "provisional"
