"""A device on the farm: asks over MQTT 3.1.1 and collects the answers."""

from __future__ import annotations

import json
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

NAME = "greenhouse"


class Device:
    """Use as a context manager. `is_subscribed` is set once answers would arrive."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port = port
        self._prefix = prefix
        self._answers: dict[str, dict[str, Any]] = {}
        self.is_subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{prefix}/answer/{NAME}", qos=1)
        self._client.on_subscribe = lambda *_: self.is_subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._take(bytes(message.payload))

    def __enter__(self) -> Device:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, name: str, question: str) -> None:
        payload = json.dumps({"id": name, "question": question}, ensure_ascii=False)
        self._client.publish(f"{self._prefix}/ask/{NAME}", payload, qos=1)

    def answer_to(self, name: str) -> dict[str, Any] | None:
        return self._answers.get(name)

    def _take(self, payload: bytes) -> None:
        answer = json.loads(payload)
        self._answers[answer["id"]] = answer
