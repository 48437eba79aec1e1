"""Verdicts from devices become rows; what cannot be understood is logged and counted, and never answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import structlog

from mqrouter.core.feedback import Feedback, Verdict, decode_feedback
from mqrouter.core.rate import DeviceRates
from mqrouter.core.request import Incoming
from mqrouter.core.topics import TopicMap
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.ports import Clock, FeedbackStore

log = structlog.get_logger("feedback")


class Feedbacks:
    """`routes` says which there are just now: a verdict may name the right one. The intake counts along."""

    def __init__(
        self,
        store: FeedbackStore,
        clock: Clock,
        topics: TopicMap,
        max_depth: int,
        *,
        rates: DeviceRates,
        routes: Callable[[], Collection[str]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._topics = topics
        self._max_depth = max_depth
        self._rates = rates
        self._routes = routes
        self.counts: Counter[str] = Counter()

    def check(self, messages: Sequence[Incoming]) -> list[Feedback]:
        """Returns those of the messages that can be understood."""
        return [found for incoming in messages if (found := self._checked(incoming)) is not None]

    async def write(self, found: Sequence[Feedback]) -> None:
        """They are on disk, as far as their requests exist. Raises StoreError; writing twice does no harm."""
        written = await self._store.record_feedback(found, self._clock.now_ms())
        for feedback, request_id in zip(found, written, strict=True):
            if request_id is None:
                self._refuse(feedback.device, "this device asked nothing of that name, or there is no answer to judge")
                continue
            self.counts["feedback"] += 1
            log.info(
                "feedback.recorded",
                request_id=request_id,
                device=feedback.device,
                verdict=str(feedback.verdict),
                names_no_route=feedback.verdict is Verdict.WRONG_ROUTE and feedback.right_route is None,
            )

    def _checked(self, incoming: Incoming) -> Feedback | None:
        try:
            feedback = decode_feedback(incoming, self._topics, self._routes(), self._max_depth)
            if not self._rates.is_allowed(str(feedback.device), self._clock.monotonic_s()):
                raise RequestError(ErrorCode.RATE_LIMITED, "too many verdicts a minute from this device")
        except RequestError as error:
            self._refuse(incoming.topic, error.message)
            return None
        return feedback

    def _refuse(self, sender: str | None, why: str) -> None:
        self.counts["feedback_refused"] += 1
        log.info("feedback.refused", sender=sender, why=why)
