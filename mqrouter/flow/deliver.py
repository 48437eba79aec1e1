"""Stage 4, deliver: answers leave from the outbox while connected, and are done when the broker acknowledges."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

import structlog

from mqrouter.core.backoff import Backoff
from mqrouter.core.records import OutboxRow, Seq
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.ports import Broker, Clock, Store, Telemetry
from mqrouter.flow.telemetry import NoTelemetry
from mqrouter.flow.tracing import NoTraces, Traces
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("request")

OFFER_AGAIN = Backoff(min_s=2.0, max_s=60.0)
STORE_RETRY_S = 1.0
MAX_LOSSES = 3


class Publication(StrEnum):
    """How the broker took an answer."""

    TAKEN = "taken"
    NO_SUBSCRIBER = "no_subscriber"  # MQTT 5 reason 0x10: acknowledged, and nobody got it
    REFUSED = "refused"
    LOST = "connection_lost"


class Deliver:
    def __init__(
        self,
        store: Store,
        broker: Broker,
        clock: Clock,
        *,
        max_in_flight: int,
        answered: Wakeup,
        telemetry: Telemetry | None = None,
        traces: Traces | None = None,
        finished: Callable[[OutboxRow], None] = lambda _row: None,
    ) -> None:
        self._finished = finished
        self._store = store
        self._broker = broker
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._answered = answered
        self._telemetry = telemetry or NoTelemetry()
        self._traces = traces or NoTraces()
        self._in_flight: dict[int, OutboxRow] = {}
        self._sent_at_s: dict[int, float] = {}
        """Of those in flight, by the monotonic clock."""
        self._after: Seq = 0
        self._connections = 0
        self._losses: Counter[Seq] = Counter()
        """How many connections in a row ended with this request's answer in flight."""
        self._acknowledged: asyncio.Queue[tuple[OutboxRow, Publication]] = asyncio.Queue()
        self._looks_asked, self._looks_done = 0, 0
        self.delivered = 0

    def look_again(self) -> None:
        """What is answered by now is sent before `is_done`."""
        self._looks_asked += 1
        self._answered.give()

    @property
    def is_done(self) -> bool:
        """True where what was answered at the latest `look_again` is sent, and what was sent is acknowledged."""
        return self._looks_done == self._looks_asked and not self.in_flight

    @property
    def in_flight(self) -> int:
        return len(self._in_flight) + self._acknowledged.qsize()

    def acknowledged(self, number: int, publication: Publication) -> None:
        """The broker answered for packet `number`; called from its callback."""
        row = self._in_flight.pop(number, None)
        if row is not None:
            self._acknowledged.put_nowait((row, publication))
            took_s = self._clock.monotonic_s() - self._sent_at_s.pop(number)
            self._telemetry.published(took_s)
            self._traces.published(row, str(publication), took_s)
        self._answered.give()  # the broker's window has room again

    def reconnected(self) -> None:
        """What was in flight has to go out again: nobody will acknowledge it any more."""
        self._losses = Counter({row.request: self._losses[row.request] + 1 for row in self._in_flight.values()})
        self._in_flight.clear()
        self._sent_at_s.clear()
        self._after = 0
        self._connections += 1
        self._answered.give()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._publish_forever(), name="deliver.publish")
            both.create_task(self._record_forever(), name="deliver.record")

    async def _publish_forever(self) -> None:
        while True:
            asked = self._looks_asked
            if await self._publish_some() == 0:
                self._looks_done = asked
                await self._answered.wait()  # no limit: nothing to send until an answer or a connection comes

    async def _publish_some(self) -> int:
        room = self._max_in_flight - len(self._in_flight)
        if room <= 0 or not self._broker.is_connected:
            return 0
        connections = self._connections
        rows = await self._store.outbox_after(self._after, room)
        if connections != self._connections:
            return 1  # a new connection meanwhile: what came before these rows has to go out again too
        # The terminal answer may follow a provisional one that is still in flight.
        busy = {(row.request, row.is_provisional) for row in self._in_flight.values()}
        for row in rows:
            if (row.request, row.is_provisional) in busy:
                self._after = max(self._after, row.seq)
                continue
            if self._losses[row.request] >= MAX_LOSSES:
                await self._put_off(row)
                self._after = max(self._after, row.seq)
                continue
            number = self._broker.publish(row.message, self._clock.now_ms())
            if number is None:
                return 0  # disconnected, or the broker's window is full: the next connection or PUBACK goes on
            self._in_flight[number] = row
            self._sent_at_s[number] = self._clock.monotonic_s()
            self._after = max(self._after, row.seq)
        return len(rows)

    async def _put_off(self, row: OutboxRow) -> None:
        """An answer that several connections in a row have ended at waits, longer each time: meanwhile the others go.

        A broker of MQTT 3.1.1 has no other way to say that an answer is too large for it.
        """
        del self._losses[row.request]
        try:
            await self._offer_later(row, Publication.LOST)
        except StoreFatalError:
            raise
        except StoreError as error:
            log.error("deliver.write_failed", request_id=row.request_id, error=str(error))

    async def _record_forever(self) -> None:
        async with asyncio.TaskGroup() as recording:
            while True:
                row, publication = await self._acknowledged.get()
                recording.create_task(self._record(row, publication), name=f"deliver.{row.request_id}")

    async def _record(self, row: OutboxRow, publication: Publication) -> None:
        """What the broker said is on disk, however long that takes: an answer it took must not go out as untaken."""
        while True:
            try:
                if publication is Publication.TAKEN:
                    await self._store.delivered(row, self._clock.now_ms())
                    self._log_end(row)
                else:
                    await self._offer_later(row, publication)
                break
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("deliver.write_failed", request_id=row.request_id, error=str(error))
            await asyncio.sleep(STORE_RETRY_S)
        self._answered.give()

    async def _offer_later(self, row: OutboxRow, publication: Publication) -> None:
        now_ms = self._clock.now_ms()
        again_ms = now_ms + int(1000 * OFFER_AGAIN.ceiling_s(row.tries + 1))
        log.info("deliver.not_taken", request_id=row.request_id, why=str(publication), tries=row.tries + 1)
        await self._store.not_taken(row, str(publication), again_ms, now_ms)

    def _log_end(self, row: OutboxRow) -> None:
        if row.is_provisional:
            log.info("request.answered_provisionally", request_id=row.request_id, device=row.device, route=row.route)
            return
        self.delivered += 1
        elapsed_ms = self._clock.now_ms() - row.received_at_ms
        self._telemetry.delivered(row.tier, elapsed_ms / 1000)
        self._finished(row)
        log.info(
            "request.finished",
            request_id=row.request_id,
            device=row.device,
            state=str(row.state if row.state != "answered" else "delivered"),
            code=row.reason,
            route=row.route,
            tier=row.tier,
            model=row.model,
            attempts=row.attempts,
            elapsed_ms=elapsed_ms,
        )
