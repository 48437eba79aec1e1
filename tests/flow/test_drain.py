"""After an outage a tier's backlog drains by priority, device by device, over all the routes that wait for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from fakes import FakeClock, FlakyDatabase, ScriptedTier, request, running, settled, until
from test_limits import Stage

from mqrouter.core.breaker import BreakerState
from mqrouter.errors import UnreachableError


class Outage(Stage):
    """The hub is down and requests come in; `order` is that of the calls once it is back."""

    def __init__(self, database: FlakyDatabase, clock: FakeClock) -> None:
        super().__init__(database, clock)
        self.hub = ScriptedTier(UnreachableError("refused"), probes=[False])

    async def put(self, name: str, device: str, *, priority: int = 0, tiers: tuple[str, ...] = ("hub",)) -> None:
        body = json.dumps({"question": name, "id": name, "priority": priority})
        now_ms = self.clock.now_ms()
        await self.store.accept([request(body, topic=f"mqrouter/farm/ask/{device}", now_ms=now_ms)], now_ms)
        (row,) = await self.store.next_received(1, ())
        await self.store.queue_for_tiers(row, tiers, route="cattle", confidence=0.5, decision={}, now_ms=now_ms)
        self.board.wake_for(tiers)

    async def drained(self) -> Sequence[str]:
        self.hub.calls.clear()
        self.hub.then(["Fine."])
        self.hub._probes = [True]
        self.clock.advance(60.1)
        await until(lambda: self.store.counts.total() == 0)
        return [call.messages[-1].content for call in self.hub.calls]


@pytest.fixture
def outage(database: FlakyDatabase, clock: FakeClock) -> Outage:
    return Outage(database, clock)


async def down(outage: Outage) -> None:
    await until(lambda: outage.board.breakers["hub"].state is BreakerState.OPEN)
    await settled(outage.database)


async def test_urgent_first_then_the_devices_in_turn(outage: Outage) -> None:
    async with running(outage.lane("hub").run):
        await outage.put("a1", "a")
        await down(outage)
        for name in ("a2", "a3", "a4"):
            await outage.put(name, "a")
        for name in ("b1", "b2"):
            await outage.put(name, "b")
        await outage.put("c1", "c")
        await outage.put("urgent", "a", priority=9)
        order = await outage.drained()
    assert order[0] == "urgent"
    assert {*order[1:4]} == {"a1", "b1", "c1"}
    assert {*order[4:6]} == {"a2", "b2"}
    assert order[6:] == ["a3", "a4"]


async def test_priority_holds_across_the_routes_that_wait_for_a_tier(outage: Outage) -> None:
    lists = (("hub",), ("hub", "regional"), ("hub", "edge"))
    async with running(outage.lane("hub").run):
        await outage.put("first", "z")
        await down(outage)
        for number in range(9):
            await outage.put(f"p{number}", f"d{number}", priority=number, tiers=lists[number % 3])
        order = await outage.drained()
    assert order == [*(f"p{number}" for number in range(8, 0, -1)), *sorted(order[8:])]
    assert {*order[8:]} == {"first", "p0"}


async def test_each_waiting_request_is_called_once_under_its_own_key(outage: Outage) -> None:
    async with running(outage.lane("hub").run):
        await outage.put("q0", "d0")
        await down(outage)
        for number in range(1, 30):
            await outage.put(f"q{number}", f"d{number % 3}")
        await outage.drained()
        await settled(outage.database)
    ids = [call.request_id for call in outage.hub.calls]
    assert (len(ids), len(set(ids))) == (30, 30)
