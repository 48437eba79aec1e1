"""A question's way through the tiers: the daemon's rules for what follows a failure, without its database.

One round: where the daemon would wait for a tier to come back, the bench notes that nobody answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from mqrouter.core.answer_check import mended, why_unfit
from mqrouter.core.backoff import Backoff
from mqrouter.core.events import Delta, Done, TierCall
from mqrouter.core.prompting import compose
from mqrouter.core.request import Message, Question
from mqrouter.core.retry import Failure, GiveUp, Waiting, after_failure
from mqrouter.errors import CredentialsError, ModelError, PermanentError, TransientError, UnreachableError
from mqrouter.flow.judge import Judge
from mqrouter.flow.local_answer import LocalRules, check_local, judge_local
from mqrouter.flow.ports import Clock, TierClient
from mqrouter.flow.tiers import TierBoard
from mqrouter.routing.signals import TierSignal

NO_WAIT = Backoff(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens, in whatever currency."""

    prompt: float
    completion: float


@dataclass(frozen=True, slots=True)
class AnsweringTier:
    client: TierClient
    is_local: bool
    total_timeout_s: float
    price: Price | None = None
    rules: LocalRules = field(default_factory=LocalRules)


@dataclass(frozen=True, slots=True)
class Judging:
    """By whom a local answer is judged, and under which strategy."""

    judge: Judge
    strategy: str | None


@dataclass(slots=True)
class Outcome:
    """What became of one question; grows as its attempts are made."""

    tier: str | None = None
    model: str | None = None
    answer_ms: float = 0.0
    first_token_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    """None where nothing was generated, or a tier that generated has no price."""
    is_answered: bool = False

    def add(self, done: Done, price: Price | None) -> None:
        """Counts what a tier generated, fit to send or not: it was paid for."""
        is_known = self.cost is not None or not self.completion_tokens
        self.prompt_tokens += done.prompt_tokens
        self.completion_tokens += done.completion_tokens
        if price is None or not is_known:
            self.cost = None
        else:
            spent = done.prompt_tokens * price.prompt + done.completion_tokens * price.completion
            self.cost = (self.cost or 0.0) + spent / 1e6


@dataclass(slots=True)
class _UnderWay:
    """One question between its attempts."""

    number: str
    question: Question
    messages: tuple[Message, ...]
    started_s: float
    waiting: Waiting
    judging: Judging | None
    """None: by its form alone."""
    attempts: int = 0
    outcome: Outcome = field(default_factory=Outcome)

    def go_on(self, tier: str, failure: Failure, max_attempts: int) -> bool:
        """Returns whether a tier of this round is left; `waiting` is without those that are out."""
        step = after_failure(
            self.waiting,
            tier,
            failure,
            attempts=self.attempts,
            max_attempts=max_attempts,
            rounds=0,
            backoff=NO_WAIT,
            chance=0.0,
        )
        if isinstance(step, GiveUp) or step.wait_s is not None:
            return False
        self.waiting, self.attempts = step.waiting, self.attempts + step.is_counted
        return True


class Answering:
    """Asks the tiers. `failures` counts why attempts failed, by tier and message."""

    def __init__(
        self,
        tiers: Mapping[str, AnsweringTier],
        board: TierBoard,
        clock: Clock,
        *,
        max_attempts: int,
        timer_s: Callable[[], float],
    ) -> None:
        self.failures: Counter[str] = Counter()
        self._tiers = tiers
        self._board = board
        self._clock = clock
        self._max_attempts = max_attempts
        self._timer_s = timer_s

    async def warm_up(self) -> None:
        """The local models are loaded, those that can be: a daemon that runs has long done so."""
        for tier in self._tiers.values():
            if tier.is_local:
                await tier.client.probe()

    async def answer(
        self,
        number: str,
        question: Question,
        tiers: tuple[str, ...],
        prompt: str | None,
        judging: Judging | None = None,
    ) -> Outcome:
        """Returns what the tiers made of the question, in their order; `number` becomes the Idempotency-Key."""
        messages, waiting = compose(question, prompt), Waiting(tiers, tiers)
        under_way = _UnderWay(number, question, messages, self._timer_s(), waiting, judging)
        while (name := await self._first_up(under_way.waiting.todo)) is not None:
            failure = await self._attempt(name, under_way)
            if failure is None or not under_way.go_on(name, failure, self._max_attempts):
                break
        under_way.outcome.answer_ms = 1000 * (self._timer_s() - under_way.started_s)
        return under_way.outcome

    def signals(self) -> Mapping[str, TierSignal]:
        """Returns how the tiers are doing, as the bench has seen it."""
        return self._board.signals()

    async def _first_up(self, names: tuple[str, ...]) -> str | None:
        for name in names:
            if self._board.breakers[name].is_probe_due(self._clock.monotonic_s()):
                self._board.probed(name, await self._tiers[name].client.probe())
        return self._board.first_available(names)

    async def _attempt(self, name: str, under_way: _UnderWay) -> Failure | None:
        """The breaker knows, and the outcome has what was generated; None where that is the answer."""
        try:
            await self._ask(name, under_way)
        except (UnreachableError, CredentialsError) as error:
            self._board.unreachable(name, str(error))
            return self._failed(name, Failure.UNREACHABLE, error)
        except TransientError as error:
            if error.retry_after_s is not None:
                self._board.hold(name, error.retry_after_s)
            self._board.failed(name, str(error))
            return self._failed(name, Failure.TRANSIENT, error)
        except (PermanentError, ModelError) as error:
            self._board.succeeded(name)  # it is up: it answered
            return self._failed(name, Failure.UNFIT if isinstance(error, ModelError) else Failure.REFUSED, error)
        return None

    def _failed(self, name: str, failure: Failure, error: Exception) -> Failure:
        self.failures[f"{name}: {error}"] += 1
        return failure

    async def _ask(self, name: str, under_way: _UnderWay) -> None:
        """Raises what the client raises, TransientError past the limit, ModelError for an answer not fit to send."""
        tier, outcome, asked_s = self._tiers[name], under_way.outcome, self._timer_s()
        call = TierCall(under_way.number, under_way.messages, tier.total_timeout_s)
        try:
            async with asyncio.timeout(tier.total_timeout_s):
                text, first_s, done = await self._collect(tier.client, call)
        except TimeoutError as error:
            raise TransientError(f"no whole answer within {tier.total_timeout_s:.1f} s") from error
        outcome.add(done, tier.price)
        self._check(name, under_way, text, done)
        outcome.tier, outcome.model, outcome.is_answered = name, done.model, True
        outcome.first_token_ms = None if first_s is None else 1000 * (first_s - under_way.started_s)
        self._board.answered(name, 1000 * (self._timer_s() - asked_s))

    def _check(self, name: str, under_way: _UnderWay, text: str, done: Done) -> None:
        """Raises ModelError for an answer that the daemon would not send."""
        tier, judging = self._tiers[name], under_way.judging
        is_last_resort = len(under_way.waiting.tiers) == 1 or not tier.is_local
        if tier.is_local and judging is not None:
            question = under_way.question.text
            judged = judge_local(name, tier.rules, judging.judge, judging.strategy, question, text, done)
            check_local(judged, is_last_resort=is_last_resort)
            return
        why = why_unfit(text, done.finish_reason)
        if why is not None and not (why == "truncated" and is_last_resort):
            raise ModelError(f"the answer was {why}")

    async def _collect(self, client: TierClient, call: TierCall) -> tuple[str, float | None, Done]:
        """Returns the text, when its first part came, and its end."""
        parts: list[str] = []
        first_s = None
        async with aclosing(client.stream(call)) as events:
            async for event in events:
                match event:
                    case Delta(text):
                        first_s = self._timer_s() if first_s is None else first_s
                        parts.append(text)
                    case Done():
                        return mended("".join(parts)).strip(), first_s, event
        raise TransientError("the answer broke off before its end")
