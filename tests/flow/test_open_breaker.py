"""While a tier is down and its breaker knows, a request passes it by: no connection, no wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, judge, running, settled, until
from test_limits import Stage

from mqrouter.core.breaker import BreakerState
from mqrouter.core.events import TierCall, TierEvent
from mqrouter.core.states import State
from mqrouter.errors import ErrorCode, UnreachableError

REQUESTS = 50


class Wire(ScriptedTier):
    """A tier nobody reaches; counts every touch of its network."""

    def __init__(self) -> None:
        super().__init__(UnreachableError("refused"), probes=[False])
        self.touched = 0

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        self.touched += 1
        async for event in super().stream(call):
            yield event

    async def probe(self) -> bool:
        self.touched += 1
        return await super().probe()


@pytest.fixture
def stage(database: FlakyDatabase, clock: FakeClock) -> Stage:
    stage = Stage(database, clock)
    stage.hub = Wire()
    return stage


async def outage(stage: Stage) -> int:
    """The first request finds the hub down; returns how often its network was touched for that."""
    await stage.ask()
    await until(lambda: stage.board.breakers["hub"].state is BreakerState.OPEN)
    await settled(stage.database)
    assert isinstance(stage.hub, Wire)
    assert stage.hub.touched == 1
    return stage.hub.touched


@pytest.mark.parametrize(
    ("to", "when_offline", "answer"),
    [
        (["hub", "edge"], "queue", "By the edge."),
        (["hub"], "answer_locally", "By the edge."),
        (["hub"], "reject", ErrorCode.OFFLINE_REJECTED),
    ],
)
async def test_request_touches_no_network_of_a_tier_known_to_be_down(
    stage: Stage, to: list[str], when_offline: str, answer: str
) -> None:
    stage.judge = judge(to=to, when_offline=when_offline)
    async with running(*stage.all()):
        touched = await outage(stage)
        before_s = stage.clock.monotonic_s()
        await stage.ask(REQUESTS)
        answers = await stage.answered_all(REQUESTS + 1)
        assert answers[1:] == [answer] * REQUESTS
        assert stage.clock.monotonic_s() == before_s  # nothing waited for: this clock only moves by hand
        assert stage.hub.touched == touched  # type: ignore[attr-defined]


async def test_request_that_waits_touches_none_either_and_goes_out_when_the_probe_succeeds(stage: Stage) -> None:
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        touched = await outage(stage)
        await stage.ask(REQUESTS)
        await until(lambda: stage.store.counts[State.PENDING] == REQUESTS + 1)
        await settled(stage.database)
        assert stage.hub.touched == touched  # type: ignore[attr-defined]
        stage.hub.then(["By the hub."])
        stage.hub._probes = [True]
        stage.clock.advance(1.1)
        await stage.answered_all(REQUESTS + 1)
    assert stage.hub.probed == 1


async def test_tier_that_is_looked_at_again_answers_what_waits_without_a_pause(stage: Stage) -> None:
    stage.judge = judge(to=["hub"])
    async with running(*stage.all()):
        await outage(stage)
        stage.hub.then(["By the hub."])
        stage.hub._probes = [True]
        stage.board.look_again()
        assert await stage.answered_all(1) == ["By the hub."]
