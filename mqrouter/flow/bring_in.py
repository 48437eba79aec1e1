"""Requests from a file: asked again as if their devices had just published them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from mqrouter.core.decode import Limits, decode
from mqrouter.core.request import Incoming, Kept, Refused, Request, RequestId
from mqrouter.core.topics import TopicMap
from mqrouter.flow.ports import Clock, Importing
from mqrouter.flow.tracing import NoTraces, Traces
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("desk")


class BringIn:
    """Every check and limit of the intake applies but the device's rate; `accepted` and `answered` are given."""

    def __init__(
        self,
        store: Importing,
        clock: Clock,
        topics: TopicMap,
        limits: Limits,
        *,
        new_id: Callable[[], RequestId],
        accepted: Wakeup,
        answered: Wakeup,
        traces: Traces | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._topics = topics
        self._limits = limits
        self._new_id = new_id
        self._accepted = accepted
        self._answered = answered
        self._traces = traces or NoTraces()

    async def bring_in(self, kept: Sequence[Kept], actor: str) -> dict[str, int]:
        """Returns how many are new, absorbed (their question is here already), reused, refused."""
        now_ms, started_s = self._clock.now_ms(), self._clock.monotonic_s()
        items = [self._decoded(entry, now_ms) for entry in kept]
        results = await self._store.accept(items, now_ms)
        self._traces.accepted(items, results, self._clock.monotonic_s() - started_s)
        counts = Counter(str(result) for result in results)
        told = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
        await self._store.record_action("import", f"{len(kept)} requests: {told}", actor, now_ms)
        log.warning("desk.requests_imported", actor=actor, **counts)
        self._accepted.give()
        self._answered.give()
        return dict(counts)

    def _decoded(self, kept: Kept, now_ms: int) -> Request | Refused:
        incoming = Incoming(
            0,
            0,
            0,
            False,
            False,
            kept.topic,
            kept.payload,
            correlation=kept.correlation,
            content_type=kept.content_type,
            traceparent=kept.traceparent,
        )
        item = self._decode(incoming, now_ms)
        if kept.reply_topic is None or (item.reply is not None and item.reply.topic == kept.reply_topic):
            return item
        return self._decode(replace(incoming, response_topic=kept.reply_topic), now_ms)

    def _decode(self, incoming: Incoming, now_ms: int) -> Request | Refused:
        return decode(incoming, self._topics, self._limits, self._new_id(), now_ms)
