"""The reference for `accept`: paho alone, sending every QoS 1 message back. Run: echo.py PORT."""

from __future__ import annotations

import sys

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def main() -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)

    def echo(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        client.publish("bench/reply", message.payload, qos=1)

    client.on_message = echo
    connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    connect.ReceiveMaximum = 100
    client.connect("127.0.0.1", int(sys.argv[1]), 60, properties=connect)
    client.subscribe("bench/echo", qos=1)

    def say_ready(*_: object) -> None:
        client.publish("bench/echo-ready", b"ready", qos=1, retain=True)

    client.on_subscribe = say_ready
    client.loop_forever()


main()
