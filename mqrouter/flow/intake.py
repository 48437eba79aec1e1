"""Stage 1, accept: everything waiting goes to disk in one commit, and only then is it acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from mqrouter.core.decode import Limits, decode
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.rate import DeviceRates
from mqrouter.core.records import Accepted
from mqrouter.core.request import Incoming, Refused, Request, RequestId, refusal
from mqrouter.core.topics import TopicMap
from mqrouter.errors import ErrorCode, StoreError, StoreFatalError
from mqrouter.flow.feedback import Feedbacks
from mqrouter.flow.ports import Broker, Clock, Store, Telemetry
from mqrouter.flow.telemetry import NoTelemetry
from mqrouter.flow.tracing import NoTraces, Traces
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("intake")

T = TypeVar("T")

MAX_BATCH = 512
MAX_UNACKNOWLEDGEABLE = 5_000  # QoS 0 has no receive maximum: beyond this many waiting, new ones are dropped
MAX_UNACKNOWLEDGEABLE_BYTES = 16 * 1024 * 1024
STORE_RETRY_S = 1.0


class Intake:
    def __init__(
        self,
        store: Store,
        broker: Broker,
        clock: Clock,
        topics: TopicMap,
        limits: Limits,
        *,
        rates: DeviceRates,
        max_redelivered: int = 1_000,
        new_id: Callable[[], RequestId],
        accepted: Wakeup,
        answered: Wakeup,
        disk: Callable[[], DiskLevel] = lambda: DiskLevel.ENOUGH,
        feedbacks: Feedbacks | None = None,
        telemetry: Telemetry | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._topics = topics
        self._limits = limits
        self._rates = rates
        self._max_redelivered = max_redelivered
        self._new_id = new_id
        self._accepted = accepted
        self._answered = answered
        self._disk = disk
        self._feedbacks = feedbacks
        self._telemetry = telemetry or NoTelemetry()
        self._traces = traces or NoTraces()
        self._inbox: deque[Incoming] = deque()
        self._inbox_bytes = 0
        self._arrived = Wakeup()
        self._is_stopping = False
        self._kept_packets: int | None = None
        """Since the latest connection: how many packets may still be redelivered. None once the store knows."""
        self.is_store_failing = False
        self.counts: Counter[str] = Counter() if feedbacks is None else feedbacks.counts

    def put(self, incoming: Incoming) -> None:
        """Takes a message from the broker's callback: no parsing here, and nothing that can fail."""
        size = len(incoming.payload)
        if size > self._limits.max_payload_bytes:  # it is refused anyway: a hundred such must not fill the memory
            head = incoming.payload[: self._limits.max_payload_bytes]
            incoming = replace(incoming, payload=head, cut_from_bytes=size)
        if incoming.qos == 0 and self._is_inbox_full():
            self.counts["dropped_qos0"] += 1
            return
        self._inbox.append(incoming)
        self._inbox_bytes += len(incoming.payload)
        self._arrived.give()

    def _is_inbox_full(self) -> bool:
        return len(self._inbox) >= MAX_UNACKNOWLEDGEABLE or self._inbox_bytes >= MAX_UNACKNOWLEDGEABLE_BYTES

    def connected(self, *, is_session_present: bool) -> None:
        """Without the session the broker knows us no more: packet identifiers begin anew."""
        self._kept_packets = self._max_redelivered if is_session_present and self._kept_packets != 0 else 0
        if not is_session_present:  # nothing will be redelivered under the identifiers of what still waits here
            self._inbox = deque(replace(incoming, mid=0) for incoming in self._inbox)

    def stop(self) -> None:
        """Nothing more is taken from the inbox; what is unacknowledged stays with the broker."""
        self._is_stopping = True
        self._arrived.give()

    async def run(self) -> None:
        while not self._is_stopping:
            await self._arrived.wait()
            while self._inbox and not self._is_stopping:
                await self._wait_for_disk()
                if self._is_stopping:
                    return
                batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), MAX_BATCH))]
                self._inbox_bytes -= sum(len(incoming.payload) for incoming in batch)
                await self._commit(batch)

    async def _wait_for_disk(self) -> None:
        """What came waits here, and the rest at the broker: the last room is for answers."""
        while self._disk() is DiskLevel.FULL and not self._is_stopping:  # noqa: ASYNC110  a disk gives no event
            await asyncio.sleep(STORE_RETRY_S)

    async def _commit(self, batch: Sequence[Incoming]) -> None:
        retained = [incoming for incoming in batch if incoming.is_retained]
        fresh = [incoming for incoming in batch if not incoming.is_retained]
        verdicts = [incoming for incoming in fresh if self._topics.is_feedback(incoming.topic)]
        if verdicts:
            fresh = [incoming for incoming in fresh if not self._topics.is_feedback(incoming.topic)]
        for incoming in retained:  # an old question kept by the broker: nobody is waiting for it
            log.info("intake.retained_ignored", topic=incoming.topic)
            self.counts["retained_ignored"] += 1
        started_s = self._clock.monotonic_s()
        now_ms, dropped = self._clock.now_ms(), self._store.dropped
        items = [self._checked(incoming, now_ms) for incoming in fresh]
        results = await self._accept(items, now_ms)
        if verdicts:
            await self._note(verdicts)  # after the questions: they may be about one of them
        for incoming in batch:
            self._broker.acknowledge(incoming)
        if fresh:
            took_s = self._clock.monotonic_s() - started_s
            self._telemetry.accepted(len(fresh), took_s)
            self._traces.accepted(items, results, took_s)
        self.counts.update(str(result) for result in results)
        if Accepted.NEW in results:
            self._accepted.give()
        if self._store.dropped > dropped or any(result is not Accepted.NEW for result in results):
            self._answered.give()

    async def _note(self, verdicts: Sequence[Incoming]) -> None:
        """Verdicts are on disk like questions, before they are acknowledged."""
        if self._feedbacks is not None and (found := self._feedbacks.check(verdicts)):
            feedbacks = self._feedbacks
            await self._until_written(lambda: feedbacks.write(found), len(found))

    async def _accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]:
        async def write() -> list[Accepted]:
            if self._kept_packets is not None:
                await self._forget_packets(self._kept_packets)
            return await self._store.accept(items, now_ms)

        return await self._until_written(write, len(items))

    async def _until_written(self, write: Callable[[], Awaitable[T]], waiting: int) -> T:
        """Writes for as long as it takes: unacknowledged, the broker sends no more than its window."""
        while True:
            try:
                results = await write()
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("intake.commit_failed", error=str(error), waiting=waiting)
                self.is_store_failing = True
                await asyncio.sleep(STORE_RETRY_S)
                await self._wait_for_disk()
            else:
                self.is_store_failing = False
                return results

    async def _forget_packets(self, less: int) -> None:
        self._kept_packets = None  # a connection made meanwhile says it anew
        try:
            await self._store.forget_packets(less)
        except StoreError:
            self._kept_packets = less if self._kept_packets is None else 0
            raise

    def _checked(self, incoming: Incoming, now_ms: int) -> Request | Refused:
        """Returns the request, or the reason against it."""
        item = decode(incoming, self._topics, self._limits, self._new_id(), now_ms)
        if isinstance(item, Request):
            code, message = self._why_not_now(item)
            if code is None:
                return item
            item = refusal(item, code, message)
        log.info("intake.request_rejected", request_id=item.id, code=str(item.code), device=item.device)
        return item

    def _why_not_now(self, item: Request) -> tuple[ErrorCode | None, str]:
        """Returns the limit that stands against a valid request, if any; those of the queue the store knows."""
        if self._disk() is not DiskLevel.ENOUGH:
            return ErrorCode.OVERLOADED, "the disk is nearly full"
        if not self._rates.is_allowed(item.device, self._clock.monotonic_s()):
            return ErrorCode.RATE_LIMITED, f"more than {self._rates.per_minute} questions a minute from this device"
        return None, ""
