"""The link to the broker: one connection after another, each subscribed, for as long as the daemon runs.

Every connection gets a paho client of its own. So nothing of an old connection can leak into a new one: a late
acknowledgement meets a closed client, unsent packets are gone with it, and falling back to MQTT 3.1.1 is
nothing but another client. The connection's number is the epoch that each incoming message carries.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import paho.mqtt.client as paho
import structlog

from mqrouter.core.request import Incoming, OutMessage
from mqrouter.edge.mqtt.connection import Connection
from mqrouter.edge.mqtt.options import LinkOptions
from mqrouter.edge.mqtt.wire import ConnectionFailedError

log = structlog.get_logger("mqtt")

STABLE_S = 5.0  # a connection that ends sooner counts as one more failure


@dataclass(frozen=True, slots=True)
class LinkStatus:
    is_connected: bool
    protocol: str | None
    error: str | None
    connections: int


class MqttLink:
    """Keeps one subscribed connection up, and hands on what arrives.

    `on_message(incoming)`, `on_published(number, reason code)` and `on_connected(is_session_present)` run on the
    event loop.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        on_message: Callable[[Incoming], None],
        on_published: Callable[[int, int], None],
        on_connected: Callable[[bool], None],
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_published = on_published
        self._on_connected = on_connected
        self._connection: Connection | None = None
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

    def announce(self, message: OutMessage) -> bool:
        """Sends at QoS 0; False where it was dropped: while disconnected, or while the connection takes no more."""
        connection = self._connection
        return connection is not None and connection.is_subscribed and connection.announce(message)

    def retain(self, message: OutMessage) -> bool:
        """Sends at QoS 1, to be kept by the broker; False where it was not sent: while the answers need the link."""
        connection = self._connection
        return connection is not None and connection.is_subscribed and connection.retain(message)

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
                    was_taken_over = connection.was_closed
                if not self._is_stopping:
                    log.warning("mqtt.connection_lost", error=self._error)
            except ConnectionFailedError as error:
                self._error = str(error)
                if await self._must_fall_back(error):
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

    async def _must_fall_back(self, error: ConnectionFailedError) -> bool:
        """True where the broker knows the next version and not this one.

        Silence alone is no proof: a connection that is cut while it is made is silent too, and MQTT 3.1.1 would lose
        the response topic and the correlation of every question until the next connection.
        """
        following = self._version + 1
        if following >= len(self._options.versions) or not (error.is_wrong_version or error.is_silent):
            return False
        if error.is_wrong_version:
            return True
        return await self._is_greeted(following) and not await self._is_greeted(self._version)

    async def _is_greeted(self, version: int) -> bool:
        """True where the broker answers a CONNECT, unless it is to say that it does not know this version."""
        options = replace(self._options, client_id=f"{self._options.client_id}-trial")
        trial = Connection(options, options.versions[version], 0, _ignore, _ignore, is_trial=True)
        try:
            await trial.greet()
        except ConnectionFailedError as error:
            return trial.is_greeted and not error.is_wrong_version
        finally:
            trial.close()
        return True

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

    async def _connect_once(self) -> Connection:
        self._epoch += 1
        version = self._options.versions[self._version]
        connection = Connection(self._options, version, self._epoch, self._on_message, self._on_published)
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
        self._on_connected(connection.is_session_present)
        return connection


def _ignore(*_: object) -> None:
    """Nothing is asked of a trial."""


def _version_name(version: int) -> str:
    return "5" if version == paho.MQTTv5 else "3.1.1"
