"""Stage 1, accept: everything waiting goes to disk in one commit, and only then is it acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from mqrouter.core.decode import Limits, decode
from mqrouter.core.rate import DeviceRates
from mqrouter.core.records import Accepted
from mqrouter.core.request import Incoming, Refused, Request, RequestId
from mqrouter.core.states import State
from mqrouter.core.topics import TopicMap
from mqrouter.errors import ErrorCode, StoreError, StoreFatalError
from mqrouter.flow.ports import Broker, Clock, Store
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("intake")

MAX_BATCH = 512
MAX_UNACKNOWLEDGEABLE = 5_000  # QoS 0 has no receive maximum: beyond this many waiting, new ones are dropped
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
        max_backlog: int,
        max_pending: int,
        rates: DeviceRates,
        new_id: Callable[[], RequestId],
        accepted: Wakeup,
        answered: Wakeup,
    ) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._topics = topics
        self._limits = limits
        self._max_backlog = max_backlog
        self._max_pending = max_pending
        self._rates = rates
        self._new_id = new_id
        self._accepted = accepted
        self._answered = answered
        self._inbox: deque[Incoming] = deque()
        self._arrived = Wakeup()
        self._is_stopping = False
        self._is_new_session = False
        self.is_store_failing = False
        self.counts: Counter[str] = Counter()

    def put(self, incoming: Incoming) -> None:
        """Takes a message from the broker's callback: no parsing here, and nothing that can fail."""
        if incoming.qos == 0 and len(self._inbox) >= MAX_UNACKNOWLEDGEABLE:
            self.counts["dropped_qos0"] += 1
            return
        self._inbox.append(incoming)
        self._arrived.give()

    def new_session(self) -> None:
        """The broker knows us no more: packet identifiers begin anew."""
        self._is_new_session = True

    def stop(self) -> None:
        """Nothing more is taken from the inbox; what is unacknowledged stays with the broker."""
        self._is_stopping = True
        self._arrived.give()

    async def run(self) -> None:
        while not self._is_stopping:
            await self._arrived.wait()
            while self._inbox and not self._is_stopping:
                await self._commit([self._inbox.popleft() for _ in range(min(len(self._inbox), MAX_BATCH))])

    async def _commit(self, batch: Sequence[Incoming]) -> None:
        retained = [incoming for incoming in batch if incoming.is_retained]
        fresh = [incoming for incoming in batch if not incoming.is_retained]
        for incoming in retained:  # an old question kept by the broker: nobody is waiting for it
            log.info("intake.retained_ignored", topic=incoming.topic)
            self.counts["retained_ignored"] += 1
        now_ms = self._clock.now_ms()
        results = await self._accept(self._checked_batch(fresh, now_ms), now_ms)
        for incoming in batch:
            self._broker.acknowledge(incoming)
        self.counts.update(str(result) for result in results)
        if Accepted.NEW in results:
            self._accepted.give()
        if any(result is not Accepted.NEW for result in results):
            self._answered.give()

    async def _accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]:
        """Writes the batch, for as long as it takes: unacknowledged, the broker sends no more than its window."""
        while True:
            try:
                if self._is_new_session:
                    await self._store.forget_packets()
                    self._is_new_session = False
                results = await self._store.accept(items, now_ms)
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("intake.commit_failed", error=str(error), waiting=len(items))
                self.is_store_failing = True
                await asyncio.sleep(STORE_RETRY_S)
            else:
                self.is_store_failing = False
                return results

    def _checked_batch(self, batch: Sequence[Incoming], now_ms: int) -> list[Request | Refused]:
        items: list[Request | Refused] = []
        taken = 0
        for incoming in batch:
            items.append(self._checked(incoming, now_ms, taken))
            taken += isinstance(items[-1], Request)
        return items

    def _checked(self, incoming: Incoming, now_ms: int, taken: int) -> Request | Refused:
        """Returns the request, or the reason against it; `taken` are those of the same batch, not yet counted."""
        item = decode(incoming, self._topics, self._limits, self._new_id(), now_ms)
        if isinstance(item, Request):
            code, message = self._why_not_now(item, taken)
            if code is None:
                return item
            item = Refused(
                item.id,
                incoming,
                code,
                message,
                item.device,
                item.reply,
                item.payload_hash,
                now_ms,
                dedupe_key=item.dedupe_key,
            )
        log.info("intake.request_rejected", request_id=item.id, code=str(item.code), device=item.device)
        return item

    def _why_not_now(self, item: Request, taken: int) -> tuple[ErrorCode | None, str]:
        """Returns the limit that stands against a valid request, if any."""
        if not self._rates.is_allowed(item.device, self._clock.monotonic_s()):
            return ErrorCode.RATE_LIMITED, f"more than {self._rates.per_minute} questions a minute from this device"
        if self._store.counts[State.RECEIVED] + taken >= self._max_backlog:
            return ErrorCode.OVERLOADED, "too many questions are waiting to be decided"
        if self._store.counts[State.PENDING] >= self._max_pending:
            return ErrorCode.QUEUE_FULL, "too many questions are waiting for a tier"
        return None, ""
