"""Keeping a model loaded: only a tier that is up and idle is called, and only in its hours."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeClock, running, until
from structlog.testing import capture_logs

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker, BreakerState
from mqrouter.core.records import Pause
from mqrouter.core.warmth import WarmRule, parse_hours
from mqrouter.errors import PermanentError, TransientError, UnreachableError
from mqrouter.flow.keep_warm import KeepWarm
from mqrouter.flow.tiers import TierBoard

NOON = 12 * 60


class Hub:
    """A tier that counts the calls that warm it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.error = error

    async def warm(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class Site:
    def __init__(self, clock: FakeClock, *, error: Exception | None = None, hours: str | None = None) -> None:
        self.clock = clock
        self.hub = Hub(error)
        self.minute = NOON
        self.looks = 0
        self.board = TierBoard({"hub": Breaker(1, Backoff(600.0, 600.0))}, clock, lambda: 0.5)
        rule = WarmRule(100.0, None if hours is None else parse_hours(hours))
        self.keeper = KeepWarm("hub", self.hub, rule, self.board, clock, self._look)

    def _look(self) -> int:
        self.looks += 1
        return self.minute

    async def pass_time(self, seconds: float) -> None:
        """Second by second, as far as the keeper wants to know of it."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            for _ in range(5):  # its timer, and what follows from it
                await asyncio.sleep(0)


async def test_idle_model_is_called_again_and_again(clock: FakeClock) -> None:
    site = Site(clock)
    async with running(site.keeper.run):
        await until(lambda: site.hub.calls == 1)
        await site.pass_time(99)
        assert site.hub.calls == 1
        await site.pass_time(2)
        assert site.hub.calls == 2
        await site.pass_time(303)
    assert site.hub.calls == 5


async def test_model_that_answers_needs_no_call(clock: FakeClock) -> None:
    site = Site(clock)
    async with running(site.keeper.run):
        await until(lambda: site.hub.calls == 1)
        for _ in range(10):
            await site.pass_time(50)
            site.board.answered("hub", 10.0)
        assert site.hub.calls == 1
        await site.pass_time(101)
    assert site.hub.calls == 2


async def test_hours_begin_and_end(clock: FakeClock) -> None:
    site = Site(clock, hours="06:00-20:00")
    site.minute = 5 * 60 + 59
    async with running(site.keeper.run):
        await site.pass_time(300)
        assert site.hub.calls == 0
        site.minute = 6 * 60
        await site.pass_time(16)
        assert site.hub.calls == 1
        site.minute = 20 * 60
        await site.pass_time(300)
    assert site.hub.calls == 1


async def test_tier_that_is_down_is_left_alone_until_it_is_back(clock: FakeClock) -> None:
    site = Site(clock)
    site.board.unreachable("hub", "nobody there")
    async with running(site.keeper.run):
        await site.pass_time(300)
        assert site.hub.calls == 0
        site.board.probed("hub", True)
        await site.pass_time(50)
        assert site.hub.calls == 0, "half open: the one call that is allowed is a question's"
        site.board.succeeded("hub")
        await site.pass_time(16)
    assert site.hub.calls == 1


async def test_paused_tier_is_left_alone(clock: FakeClock) -> None:
    site = Site(clock)
    site.board.pause("hub", Pause(clock.now_ms(), "anna"))
    async with running(site.keeper.run):
        await site.pass_time(300)
    assert site.hub.calls == 0


async def test_tier_found_unreachable_is_down_before_anybody_asks(clock: FakeClock) -> None:
    site = Site(clock, error=UnreachableError("refused"))
    async with running(site.keeper.run):
        await until(lambda: site.hub.calls == 1)
        await site.pass_time(300)
    assert (site.hub.calls, site.board.breakers["hub"].state) == (1, BreakerState.OPEN)


@pytest.mark.parametrize("error", [TransientError("busy"), PermanentError("no such model")])
async def test_other_failures_are_logged_and_tried_again_in_their_time(clock: FakeClock, error: Exception) -> None:
    site = Site(clock, error=error)
    with capture_logs() as logged:
        async with running(site.keeper.run):
            await until(lambda: site.hub.calls == 1)
            await site.pass_time(101)
    assert (site.hub.calls, site.board.breakers["hub"].state) == (2, BreakerState.CLOSED)
    assert [(entry["event"], entry["error"]) for entry in logged] == [("keep_warm.failed", str(error))] * 2
