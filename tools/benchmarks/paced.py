"""A paho client that asks at a rate, whatever becomes of its questions: as devices do that know of no others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.load import Subscribed

GIVE_UP_S = 120.0
ANSWERS = "bench/answers"


@dataclass(frozen=True, slots=True)
class Flow:
    latencies_s: list[float]
    """From when each question was due, which is later than it should be only for a client that is too slow."""
    asked: int
    begun_s: float
    """By the clock that all processes share."""
    ended_s: float
    """The last one was sent."""

    @property
    def per_s(self) -> float:
        return self.asked / (self.ended_s - self.begun_s)


def ask_paced(
    port: int,
    topics: Sequence[str],
    payloads: Iterable[bytes],
    per_s: float,
    meanwhile: AbstractContextManager[object],
    *,
    is_awaited: bool,
) -> Flow:
    """Publishes each payload to its topic, at this rate, within `meanwhile`.

    Returns when each has its answer, or, where that is not awaited, once the broker has them all.
    """
    asked = list(payloads)
    due_at: dict[bytes, float] = {}
    latencies: list[float] = []
    done = threading.Event()
    call = os.urandom(8)  # no correlation of an earlier call comes again
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)

    def answered(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        due_s = due_at.pop(getattr(message.properties, "CorrelationData", b""), None)
        if due_s is not None:
            latencies.append(time.monotonic() - due_s)
            if len(latencies) == len(asked):
                done.set()

    client.on_message = answered
    with Subscribed(client, port, ANSWERS):
        with meanwhile:
            begun_s = time.monotonic()
            for number, payload in enumerate(asked):
                due_s = begun_s + number / per_s
                time.sleep(max(0.0, due_s - time.monotonic()))
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.ResponseTopic = ANSWERS
                correlation = call + number.to_bytes(8, "big")
                properties.CorrelationData = correlation
                due_at[correlation] = due_s
                sent = client.publish(topics[number], payload, qos=1, properties=properties)
            sent.wait_for_publish(GIVE_UP_S)
            ended_s = time.monotonic()
        if is_awaited and not done.wait(GIVE_UP_S):
            raise SystemExit(f"bench: {len(asked) - len(latencies)} of {len(asked)} answers are missing")
    return Flow(latencies, len(asked), begun_s, ended_s)
