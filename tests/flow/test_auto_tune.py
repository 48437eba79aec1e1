"""Learning by itself: when it is due, with enough to learn from, and the new head is only taken where it is one."""

from __future__ import annotations

from typing import Any

from fakes import FakeClock, running, until

from mqrouter.errors import MqrouterError
from mqrouter.flow.auto_tune import AutoTune, Schedule

REPLACED = {"replaced": True, "accuracy": 0.9}
KEPT = {"replaced": False, "why": "it would fall"}


class Parts:
    """What the service is given: a store, a training that says `outcome`, and who hears of a new head."""

    def __init__(self, clock: FakeClock, outcome: dict[str, Any] | Exception, *, feedback: int = 50) -> None:
        self.outcome, self.feedback, self.clock = outcome, feedback, clock
        self.looked = self.trained = self.taken = 0
        self.actions: list[tuple[str, int]] = []

    def service(self) -> AutoTune:
        return AutoTune(self, self.clock, Schedule(600.0, 50), self.retrain, self.take)

    async def count_feedback(self) -> int:
        self.looked += 1
        return self.feedback

    async def latest_action_ms(self, action: str) -> int | None:
        return self.actions[-1][1] if self.actions else None

    async def record_action(self, action: str, target: str, actor: str, now_ms: int) -> None:
        self.actions.append((target, now_ms))

    async def retrain(self) -> dict[str, Any]:
        self.trained += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def take(self) -> None:
        self.taken += 1


async def test_better_head_is_taken_and_the_next_run_waits_its_time(clock: FakeClock) -> None:
    parts = Parts(clock, REPLACED)
    async with running(parts.service().run):
        await until(lambda: parts.actions)
        assert (parts.trained, parts.taken, parts.actions[0][0]) == (1, 1, "head replaced")
        clock.advance(599.0)
        await until(lambda: True)
        assert parts.trained == 1
        clock.advance(1.1)
        await until(lambda: parts.trained == 2)


async def test_worse_head_is_not_taken(clock: FakeClock) -> None:
    parts = Parts(clock, KEPT)
    async with running(parts.service().run):
        await until(lambda: parts.actions)
    assert (parts.taken, parts.actions[0][0]) == (0, "head kept: it would fall")


async def test_too_few_verdicts_are_waited_for(clock: FakeClock) -> None:
    parts = Parts(clock, REPLACED, feedback=49)
    async with running(parts.service().run):
        await until(lambda: parts.looked == 1)
        parts.feedback = 50
        clock.advance(600.1)
        await until(lambda: parts.trained == 1)


async def test_restart_does_not_bring_the_run_forward(clock: FakeClock) -> None:
    parts = Parts(clock, REPLACED)
    parts.actions.append(("head kept", clock.now_ms()))
    async with running(parts.service().run):
        for _ in range(5):
            await until(lambda: True)
        assert parts.looked == 0
        clock.advance(600.1)
        await until(lambda: parts.trained == 1)


async def test_training_that_fails_ends_nothing(clock: FakeClock) -> None:
    parts = Parts(clock, MqrouterError("no model"))
    async with running(parts.service().run):
        await until(lambda: parts.actions)
        assert (parts.taken, parts.actions[0][0]) == (0, "failed: no model")
        clock.advance(600.1)
        await until(lambda: parts.trained == 2)
