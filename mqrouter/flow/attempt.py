"""One attempt at a tier: the question goes out, and whatever comes back becomes the request's next state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import structlog

from mqrouter.core.answer_check import mended, why_unfit
from mqrouter.core.backoff import Backoff
from mqrouter.core.decode import Limits, decode_question
from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.prompting import compose
from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Answer, Question
from mqrouter.core.retry import Failure, GiveUp, GoOn, Waiting, after_failure
from mqrouter.core.states import State
from mqrouter.errors import (
    CredentialsError,
    ErrorCode,
    ModelError,
    PermanentError,
    RequestError,
    StoreError,
    StoreFatalError,
    TransientError,
    UnreachableError,
    WithheldError,
)
from mqrouter.flow.judge import Judge
from mqrouter.flow.local_answer import LocalRules, check_local, judge_local
from mqrouter.flow.outgoing import let_out, look, restored
from mqrouter.flow.ports import Chance, Clock, Progress, Saying, Store, TierClient
from mqrouter.flow.progress import NoProgress
from mqrouter.flow.recall import recall_session
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("forward")

STORE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    total_timeout_s: float
    is_local: bool
    logs_text: bool
    max_attempts: int
    backoff: Backoff
    request: Limits
    local: LocalRules = field(default_factory=LocalRules)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, collected."""

    text: str
    done: Done
    judged: str | None = None
    """What was made of a local one, for the history."""
    saw_private: bool = False
    """Its session's private turns were in view."""
    is_private: bool = False
    """By any rule of this moment."""
    is_provisional: bool = False


class Verdict(Enum):
    """What an attempt says about the tier."""

    ANSWERED = auto()
    FAILED = auto()
    UNREACHABLE = auto()


class _ExpiredError(Exception):
    """The request's time to live was over before the tier's own limit: that says nothing about the tier."""


class Attempts:
    """Makes attempts at one tier; keeps its breaker and the requests' rows up to date."""

    def __init__(
        self,
        name: str,
        client: TierClient,
        limits: AttemptLimits,
        store: Store,
        board: TierBoard,
        clock: Clock,
        chance: Chance,
        *,
        judge: Callable[[], Judge],
        answered: Wakeup,
        progress: Progress | None = None,
    ) -> None:
        self._progress = progress or NoProgress()
        self.name = name
        self._client = client
        self._limits = limits
        self.logs_text = limits.logs_text
        """May change while it runs."""
        self._store = store
        self._board = board
        self._clock = clock
        self._chance = chance
        self._judge = judge
        self._answered = answered

    async def make(self, request: StoredRequest) -> Verdict:
        """The request is answered, has ended, or waits for its next tier. Raises StoreFatalError."""
        started_s = self._clock.monotonic_s()
        try:
            reply = await self._ask(request)
        except WithheldError as error:  # what was decided no longer holds; the tier knows nothing of it
            await self._failed(request, Failure.WITHHELD, error)
        except RequestError as error:  # limits were lowered since it was accepted
            await self._end(request, error.code, error.message)
        except _ExpiredError as error:
            await self._end(request, ErrorCode.EXPIRED, str(error), State.EXPIRED)
        except UnreachableError as error:
            self._board.unreachable(self.name, str(error))
            await self._failed(request, Failure.UNREACHABLE, error)
            return Verdict.UNREACHABLE
        except CredentialsError as error:
            log.error("forward.tier_refused_credentials", tier=self.name, error=str(error))
            self._board.unreachable(self.name, str(error))
            await self._failed(request, Failure.UNREACHABLE, error)
            return Verdict.UNREACHABLE
        except TransientError as error:
            if error.retry_after_s is not None:
                await self._hold(error.retry_after_s)
            self._board.failed(self.name, str(error))
            await self._failed(request, Failure.TRANSIENT, error)
        except (PermanentError, ModelError) as error:
            self._board.succeeded(self.name)  # it is up: it answered
            failure = self._of_model(error, request) if isinstance(error, ModelError) else Failure.REFUSED
            await self._failed(request, failure, error)
        except StoreFatalError:
            raise
        except StoreError as error:  # its session could not be read
            await self._failed(request, Failure.TRANSIENT, error)
        except Exception as error:
            log.exception("forward.attempt_broke", request_id=request.id, tier=self.name)
            self._board.failed(self.name, f"{type(error).__name__}: {error}")
            await self._failed(request, Failure.TRANSIENT, error)
        else:
            self._board.answered(self.name, 1000 * (self._clock.monotonic_s() - started_s))
            await self._answer(request, reply)
            return Verdict.ANSWERED
        return Verdict.FAILED

    async def _ask(self, request: StoredRequest) -> Reply:
        """Returns the whole answer. Raises what the client raises, TransientError past the limit.

        Raises _ExpiredError where the request's time to live is over before the tier's own limit.
        """
        question = decode_question(request.payload, request.content_type, request.reply.client_id, self._limits.request)
        left_s = (request.expires_at_ms - self._clock.now_ms()) / 1000
        deadline_s = max(0.001, min(self._limits.total_timeout_s, left_s))
        deadline_s, is_cut_short = self._leave_time(request, deadline_s, left_s)
        judge = self._judge()
        why = request.private_by | await look(judge.privacy, question, request.topic, request.device)
        history = await recall_session(self._store, request, question, judge, self.name, self._limits.request)
        messages = compose(question, judge.prompt_for(request.route), history.messages)
        outgoing = await let_out(messages, why, judge.tiers.get(self.name), judge.privacy)
        is_private = why.is_private or history.holds_private
        call = TierCall(request.id, outgoing.messages, deadline_s)
        try:
            async with asyncio.timeout(deadline_s):
                with self._progress.begin(request, question) as saying:
                    reply = await self._collect(restored(self._client.stream(call), outgoing.restorer), saying)
        except TimeoutError as error:
            if is_cut_short:
                raise ModelError(
                    f"no answer within {deadline_s:.1f} s, the rest is for another tier", is_lesser=True
                ) from error
            if left_s <= self._limits.total_timeout_s:
                raise _ExpiredError("no answer within the time to live") from error
            raise TransientError(f"no whole answer within {deadline_s:.1f} s") from error
        except (TransientError, PermanentError) as error:
            if is_private:
                error.detail = ""  # a server may quote what it was asked
            raise
        is_provisional = self._is_provisional(request, question)
        # Until a better one comes nobody else answers: what is passed at the last tier left is passed here.
        judged = self._check(replace(request, tiers=(self.name,)) if is_provisional else request, question.text, reply)
        return replace(
            reply,
            judged=judged,
            saw_private=history.holds_private,
            is_private=is_private,
            is_provisional=is_provisional,
        )

    def _of_model(self, error: ModelError, request: StoredRequest) -> Failure:
        """A route that does not wait is better served by a lesser answer than by none: it may come to that."""
        is_cut_short = error.is_lesser and error.judged is None
        may_come_back = error.is_lesser and (is_cut_short or not self._judge().is_patient(request.route))
        return Failure.LESSER if may_come_back else Failure.UNFIT

    def _leave_time(self, request: StoredRequest, deadline_s: float, left_s: float) -> tuple[float, bool]:
        """Returns the limit of the attempt, and whether it is shorter so that another tier that is up has time left."""
        share_s = self._limits.local.ttl_share * left_s
        if (
            not self._limits.is_local
            or share_s >= deadline_s
            or self._board.first_available(self._others(request)) is None
        ):
            return deadline_s, False
        return max(0.001, share_s), True

    def _is_provisional(self, request: StoredRequest, question: Question) -> bool:
        """True where this device only fills in for better tiers, and the requester wants to hear from both."""
        return (
            self._limits.is_local
            and question.accepts_provisional
            and self._judge().refines(request.route)
            and request.tiers[:1] != (self.name,)
        )

    async def _collect(self, stream: AsyncGenerator[TierEvent, None], saying: Saying) -> Reply:
        parts: list[str] = []
        async with aclosing(stream) as events:
            async for event in events:
                match event:
                    case Delta(text):
                        parts.append(text)
                        saying.add(text)
                    case Done():
                        saying.end()
                        return Reply(mended("".join(parts)).strip(), event)
        raise TransientError("the answer broke off before its end")

    def _check(self, request: StoredRequest, question: str, reply: Reply) -> str | None:
        """Returns what was made of a local answer. Raises ModelError where the answer must not be sent."""
        if self._limits.is_local:
            rules, judge = self._limits.local, self._judge()
            judged = judge_local(self.name, rules, judge, request.strategy, question, reply.text, reply.done)
            return check_local(judged, is_last_resort=self._is_last_resort(request))
        why = why_unfit(reply.text, reply.done.finish_reason)
        if why is not None and why != "truncated":
            raise ModelError(f"the answer was {why}")
        return None

    def _others(self, request: StoredRequest) -> list[str]:
        return [tier for tier in request.tiers if tier != self.name]

    def _is_last_resort(self, request: StoredRequest) -> bool:
        """True where no other tier is left, or none that is up and the route does not wait for one."""
        others = self._others(request)
        is_impatient = not self._judge().is_patient(request.route)
        return not others or (is_impatient and self._board.first_available(others) is None)

    async def _answer(self, request: StoredRequest, reply: Reply) -> None:
        now_ms = self._clock.now_ms()
        answer = Answer(
            text=reply.text,
            route=request.route,
            tier=self.name,
            model=reply.done.model,
            confidence=None if request.confidence is None else round(request.confidence, 4),
            is_truncated=reply.done.finish_reason == "length",
            latency_ms=now_ms - request.received_at_ms,
            usage={
                "prompt_tokens": reply.done.prompt_tokens,
                "completion_tokens": reply.done.completion_tokens,
            },
            judged=reply.judged,
            is_provisional=reply.is_provisional,
            saw_private=reply.saw_private,
        )
        if reply.is_provisional:
            await self._answer_provisionally(request, answer, now_ms)
            return
        is_ours = await self._finish(request, answer, State.ANSWERED, now_ms)
        if is_ours and self.logs_text and not (request.is_private or reply.is_private):
            log.info("forward.answered", request_id=request.id, payload=request.payload.decode(), answer=reply.text)

    async def _answer_provisionally(self, request: StoredRequest, answer: Answer, now_ms: int) -> None:
        """The requester hears this now, and the tiers before this one still have their turn."""
        better = request.tiers[: request.tiers.index(self.name)]
        await self._written(lambda: self._store.answer_provisionally(request, answer, Waiting(better, better), now_ms))
        self._answered.give()
        self._board.wake_for(better)

    async def _failed(self, request: StoredRequest, failure: Failure, error: Exception) -> None:
        log.info(
            "forward.attempt_failed", request_id=request.id, tier=self.name, failure=str(failure), error=str(error)
        )
        step = after_failure(
            Waiting(request.tiers, request.todo),
            self.name,
            failure,
            attempts=request.attempts,
            max_attempts=self._limits.max_attempts,
            rounds=request.rounds,
            backoff=self._limits.backoff,
            chance=self._chance(),
            retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
        )
        detail = getattr(error, "detail", "")
        note = f"{self.name}: {failure}: {error}" + (f": {detail}" if detail else "")
        judged = error.judged if isinstance(error, ModelError) else None
        match step:
            case GoOn() if self._may_not_wait(request, step):
                await self._end(request, self._judge().offline_code(request.route), note, judged=judged)
            case GoOn():
                await self._release(request, step, note, judged)
            case GiveUp():
                is_withheld = failure is Failure.WITHHELD
                code = ErrorCode.PRIVATE_UNANSWERABLE if is_withheld else ErrorCode.UPSTREAM_FAILED
                await self._end(request, code, note, judged=judged)

    def _may_not_wait(self, request: StoredRequest, step: GoOn) -> bool:
        """True where no tier is left that is up, and the route wants an answer now, or would rather say so."""
        if request.route in self._store.paused_routes or self._judge().is_patient(request.route):
            return False
        return self._board.first_available(step.waiting.tiers) is None

    async def _hold(self, for_s: float) -> None:
        """Nobody asks the tier before its time, also after a restart."""
        self._board.hold(self.name, for_s)
        until_ms = self._clock.now_ms() + int(1000 * for_s)

        async def write() -> bool:
            await self._store.hold(self.name, until_ms)
            return True

        await self._written(write)

    async def _release(self, request: StoredRequest, step: GoOn, note: str, judged: str | None) -> None:
        now_ms = self._clock.now_ms()
        await self._written(
            lambda: self._store.release(
                request,
                step.waiting,
                note=note,
                judged=judged,
                now_ms=now_ms,
                is_counted=step.is_counted,
                not_before_ms=None if step.wait_s is None else now_ms + int(1000 * step.wait_s),
            )
        )
        self._board.wake_for(step.waiting.todo)

    async def _end(
        self,
        request: StoredRequest,
        code: ErrorCode,
        note: str,
        state: State = State.ANSWERED,
        *,
        judged: str | None = None,
    ) -> None:
        now_ms = self._clock.now_ms()
        answer = Answer(
            error=code,
            error_message=note,
            route=request.route,
            latency_ms=now_ms - request.received_at_ms,
            judged=judged,
        )
        await self._finish(request, answer, state, now_ms)

    async def _finish(self, request: StoredRequest, answer: Answer, state: State, now_ms: int) -> bool:
        is_ours = await self._written(lambda: self._store.finish(request, answer, state, now_ms, lease=request.lease))
        if not is_ours:
            log.info("forward.late_answer_dropped", request_id=request.id, tier=self.name)
        self._answered.give()
        return is_ours

    async def _written(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """Returns what `write` returns once it succeeds: an answer that was paid for waits until the disk has room."""
        while True:
            try:
                return await write()
            except StoreFatalError:
                raise
            except StoreError as error:
                log.error("forward.write_failed", tier=self.name, error=str(error))
            await asyncio.sleep(STORE_RETRY_S)
