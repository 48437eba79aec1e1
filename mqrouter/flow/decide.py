"""Stage 2, decide: each received request gets a decision, and with it a place in the queue or an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from mqrouter.core.decode import Limits, decode_question
from mqrouter.core.load import put_busy_last
from mqrouter.core.records import Seq, StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.topics import TopicMap
from mqrouter.errors import ErrorCode, MqrouterError, RequestError, StoreError, StoreFatalError
from mqrouter.flow.forward import nothing_to_refresh
from mqrouter.flow.judge import Judge, Judgement
from mqrouter.flow.outgoing import look
from mqrouter.flow.ports import Clock, Embedder, InHand, Store, Telemetry
from mqrouter.flow.telemetry import NoTelemetry
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup
from mqrouter.routing.session import Session

log = structlog.get_logger("decide")

MAX_DECIDING = 16  # enough to keep the embedder's thread busy while others are being read or written
STORE_RETRY_S = 1.0
NO_TOPICS = TopicMap("", (), ())


class Decide:
    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        judge: Judge,
        board: TierBoard,
        clock: Clock,
        limits: Limits,
        in_hand: InHand,
        *,
        accepted: Wakeup,
        answered: Wakeup,
        topics: TopicMap = NO_TOPICS,
        refresh_load: Callable[[], Awaitable[None]] = nothing_to_refresh,
        telemetry: Telemetry | None = None,
        decided: Callable[[StoredRequest, Judgement], None] = lambda _request, _judgement: None,
    ) -> None:
        self._decided = decided
        self.judge = judge
        self._telemetry = telemetry or NoTelemetry()
        self._store = store
        self._embedder = embedder
        self._board = board
        self._clock = clock
        self._limits = limits
        self._in_hand = in_hand
        self._accepted = accepted
        self._answered = answered
        self._topics = topics
        self._refresh_load = refresh_load
        self._busy: set[Seq] = set()
        self._latest_of: dict[tuple[str, str | None], asyncio.Event] = {}
        """By (device, session): set once the latest request of it that is in hand is decided."""
        self._suspect: Seq | None = None
        """The one request in hand that an earlier life may have died of."""
        self.abstained = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as deciding:
            while True:
                room = MAX_DECIDING - len(self._busy)
                rows = await self._store.next_received(room, self._busy) if room else []
                taken = [request for request in rows if self._take(request)]
                for request in taken:
                    decision = self._decide(request) if request.session is None else self._decide_in_turn(request)
                    deciding.create_task(decision, name=f"decide.{request.id}")
                if not taken:
                    await self._accepted.wait()  # no limit: nothing to do until a request arrives or one is done

    def _take(self, request: StoredRequest) -> bool:
        """The request is in hand; False where another suspect is: a crash must leave no doubt whose it was."""
        if request.crashes and self._suspect is not None:
            return False
        if request.crashes:
            self._suspect = request.seq
        self._busy.add(request.seq)
        self._in_hand.take(request.seq)
        return True

    def _drop(self, request: StoredRequest) -> None:
        self._in_hand.drop(request.seq)
        self._busy.discard(request.seq)
        if self._suspect == request.seq:
            self._suspect = None

    def _decide_in_turn(self, request: StoredRequest) -> Coroutine[Any, Any, None]:
        """Returns the deciding of a request once those before it in its session are decided."""
        key, mine = (request.device, request.session), asyncio.Event()
        before, self._latest_of[key] = self._latest_of.get(key), mine

        async def decide() -> None:
            try:
                if before is not None:
                    await before.wait()  # no limit of its own: that one is being decided, and this sets its event
                await self._decide(request)
            finally:
                mine.set()
                if self._latest_of.get(key) is mine:
                    del self._latest_of[key]

        return decide()

    async def _decide(self, request: StoredRequest) -> None:
        try:
            await self._decide_or_refuse(request)
        except StoreFatalError:
            raise
        except StoreError as error:
            log.error("decide.write_failed", request_id=request.id, error=str(error))
            await asyncio.sleep(STORE_RETRY_S)  # the row is still there: it is read again
        finally:
            self._drop(request)
            self._accepted.give()

    async def _decide_or_refuse(self, request: StoredRequest) -> None:
        """The request is queued or answered. Raises StoreError where that could not be written."""
        try:
            await self._decide_or_raise(request)
        except RequestError as error:
            await self._answer(request, error.code, error.message)
        except StoreError:
            raise
        except MqrouterError as error:
            log.error("decide.failed", request_id=request.id, error=str(error))
            await self._answer(request, ErrorCode.INTERNAL, "the question could not be classified")
        except Exception:
            log.exception("decide.failed", request_id=request.id)
            await self._answer(request, ErrorCode.INTERNAL, "the question could not be classified")

    async def _decide_or_raise(self, request: StoredRequest) -> None:
        if request.expires_at_ms <= self._clock.now_ms():
            # Left to upkeep it would be read again, and again, until upkeep comes round.
            await self._answer(request, ErrorCode.EXPIRED, "no answer within the time to live", State.EXPIRED)
            return
        started_s = self._clock.monotonic_s()
        question = decode_question(request.payload, request.content_type, request.reply.client_id, self._limits)
        await self._refresh_load()
        rule = self._topics.rule_for(request.topic)
        judgement = await self.judge.judge(
            question,
            self._embedder,
            strategy=None if rule is None else rule.strategy,
            session=await self._session_of(request),
            tiers=self._board.signals(),
            private_by=request.private_by | await look(self.judge.privacy, question, request.topic, request.device),
        )
        self._telemetry.decided(judgement.decision, self._clock.monotonic_s() - started_s)
        plan = judgement.tier_plan
        if judgement.decision.route is None:
            self.abstained += 1
        self._decided(request, judgement)
        if plan.refusal is not None:
            await self._store.record_decision(request, judgement.to_json())
            raise RequestError(plan.refusal, plan.refusal_message)
        await self._queue(request, judgement)
        # After it is queued: a tier that goes down while that is being written is seen here, or else by upkeep.
        route = judgement.decision.route
        if route in self._store.paused_routes:
            return  # its questions wait, whatever becomes of others like them
        if not self.judge.is_patient(route) and self._board.first_available(plan.tiers) is None:
            message = f"none of {', '.join(plan.tiers)} can be reached{self._board.why_limited(plan.tiers)}"
            await self._answer(request, self.judge.offline_code(route), message)

    async def _session_of(self, request: StoredRequest) -> Session | None:
        if request.session is None:
            return None
        max_age_ms = int(1000 * self.judge.session_max_age_s)
        return await self._store.latest_of_session(request, request.received_at_ms - max_age_ms)

    async def _queue(self, request: StoredRequest, judgement: Judgement) -> None:
        decision, planned = judgement.decision, judgement.tier_plan.tiers
        up = {name for name in planned if self._board.is_available(name)}
        left_s = (request.expires_at_ms - self._clock.now_ms()) / 1000
        is_in_order = judgement.route_plan.when_offline == "answer_then_refine"  # what comes first has the last word
        loads = {} if is_in_order else self._board.loads
        tiers, too_busy = put_busy_last(planned, loads, up, left_s)
        await self._store.queue_for_tiers(
            request,
            tiers,
            route=decision.route,
            confidence=decision.score,
            decision=judgement.to_json() | {"tiers": tiers, "too_busy": [entry.to_json() for entry in too_busy]},
            now_ms=self._clock.now_ms(),
        )
        log.debug("decide.route_chosen", request_id=request.id, route=decision.route, tiers=tiers)
        self._board.wake_for(tiers)

    async def _answer(
        self, request: StoredRequest, code: ErrorCode, message: str, state: State = State.ANSWERED
    ) -> None:
        now_ms = self._clock.now_ms()
        answer = Answer(error=code, error_message=message, latency_ms=now_ms - request.received_at_ms)
        await self._store.finish(request, answer, state, now_ms)
        self._answered.give()
