"""A paho client that keeps a window of QoS 1 messages open, as a crowd of devices would."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

GIVE_UP_S = 120.0


@dataclass(slots=True)
class Result:
    elapsed_s: float
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s


def ask_all(port: int, topic: str, reply_topic: str, payloads: Iterable[bytes], *, window: int) -> Result:
    """Publishes every payload to `topic`, `window` at a time, and returns when each has its answer on `reply_topic`."""
    asked = list(payloads)
    sent_at: dict[bytes, float] = {}
    latencies: list[float] = []
    free, done = threading.Semaphore(window), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)

    def answered(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"")
        started = sent_at.pop(correlation, None)
        if started is None:
            return
        latencies.append(time.perf_counter() - started)
        free.release()
        if len(latencies) == len(asked):
            done.set()

    client.on_message = answered
    with Subscribed(client, port, reply_topic):
        begun = time.perf_counter()
        for number, payload in enumerate(asked):
            free.acquire()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = reply_topic
            properties.CorrelationData = number.to_bytes(8, "big")
            sent_at[number.to_bytes(8, "big")] = time.perf_counter()
            client.publish(topic, payload, qos=1, properties=properties)
        if not done.wait(GIVE_UP_S):
            raise SystemExit(f"bench: {len(asked) - len(latencies)} of {len(asked)} answers are missing")
        return Result(time.perf_counter() - begun, latencies)


def echo_all(port: int, topic: str, reply_topic: str, payload: bytes, count: int, *, window: int) -> float:
    """Sends a payload round and round, `window` at a time; returns the round trips a second. No properties at all."""
    free, done = threading.Semaphore(window), threading.Event()
    arrived = 0
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)

    def returned(*_: object) -> None:
        nonlocal arrived
        arrived += 1
        free.release()
        if arrived == count:
            done.set()

    client.on_message = returned
    with Subscribed(client, port, reply_topic):
        begun = time.perf_counter()
        for _ in range(count):
            free.acquire()
            client.publish(topic, payload, qos=1)
        if not done.wait(GIVE_UP_S):
            raise SystemExit(f"bench: {count - arrived} of {count} echoes are missing")
        return count / (time.perf_counter() - begun)


def wait_for_retained(port: int, topic: str) -> None:
    """Returns once somebody has left a retained message on `topic`."""
    seen = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = lambda *_: seen.set()
    with Subscribed(client, port, topic):
        if not seen.wait(10):
            raise SystemExit(f"bench: nobody said {topic}")


def publish_all(port: int, topic: str, payload: bytes, count: int, *, window: int) -> None:
    """Publishes `count` messages, `window` unacknowledged at a time; returns when the broker has them all."""
    free = threading.Semaphore(window)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)
    client.on_publish = lambda *_: free.release()
    with Subscribed(client, port, "bench/nothing"):
        for _ in range(count):
            free.acquire()
            client.publish(topic, payload, qos=1)
        for _ in range(window):
            free.acquire()


def _send_at_once(_client: Any, _data: Any, opened: Any) -> None:
    """Without TCP's waiting for more: one question at a time would measure that."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Subscribed:
    def __init__(self, client: paho.Client, port: int, topic: str) -> None:
        self._client, self._port, self._topic = client, port, topic

    def __enter__(self) -> None:
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_socket_open = _send_at_once
        self._client.connect("127.0.0.1", self._port, 60)
        self._client.loop_start()
        self._client.subscribe(self._topic, qos=1)
        if not ready.wait(10):
            raise SystemExit("bench: the broker does not answer")

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
