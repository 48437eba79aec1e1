"""Orders over MQTT: carried out once, on record where something changed, and answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import PREFIX, FakeBroker, FakeClock, FlakyDatabase, incoming, running, settled, until

from mqrouter.core.commands import CommandTopics
from mqrouter.core.records import Pause
from mqrouter.core.timeline import Now
from mqrouter.edge.store.reading import list_actions
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError
from mqrouter.flow.commands import MAX_WAITING, PER_MINUTE, Commands, RouteOrders


class Stage:
    """Orders over a real store, with two tiers."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock, *, is_on: bool = True) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.broker = FakeBroker()
        self.paused: dict[str, Pause] = {}
        self.looks = 0
        self.commands = Commands(
            self.broker,
            clock,
            CommandTopics(PREFIX),
            ("hub", "edge"),
            is_on=is_on,
            pause=self._pause,
            resume=self._resume,
            is_paused=self.paused.__contains__,
            routes=RouteOrders(
                lambda: ["frost", *store.paused_routes],
                lambda: store.paused_routes,
                self._pause_routes,
                self._resume_routes,
            ),
            done=self._look,
        )

    async def _pause(self, tiers: Sequence[str], actor: str) -> None:
        for tier in tiers:
            await self.store.pause(tier, actor, self.clock.now_ms())
            self.paused[tier] = Pause(self.clock.now_ms(), actor)

    async def _resume(self, tiers: Sequence[str], actor: str) -> None:
        for tier in tiers:
            await self.store.resume(tier, actor, self.clock.now_ms())
            del self.paused[tier]

    async def _pause_routes(self, routes: Sequence[str], actor: str) -> None:
        for route in routes:
            await self.store.pause_route(route, actor, self.clock.now_ms())

    async def _resume_routes(self, routes: Sequence[str], actor: str) -> None:
        for route in routes:
            await self.store.resume_route(route, actor, self.clock.now_ms())

    def _look(self) -> None:
        self.looks += 1

    async def order(self, rest: str, payload: str, **more: Any) -> dict[str, Any]:
        number = len(self.broker.bodies)
        assert self.commands.take(incoming(payload, topic=f"{PREFIX}/cmd/{rest}", **more))
        await until(lambda: len(self.broker.bodies) > number)
        result: dict[str, Any] = json.loads(self.broker.bodies[-1])
        return result

    async def actions(self) -> list[tuple[str, str, str]]:
        rows = await self.database.read(lambda db: list_actions(db, 1000, Now(self.clock.now_ms())))
        return [(row["action"], row["target"], row["actor"]) for row in rows]


@pytest.fixture
def stage(store: Store, database: FlakyDatabase, clock: FakeClock) -> Stage:
    return Stage(store, database, clock)


async def test_pause_of_all_is_one_row_for_each_tier(stage: Stage) -> None:
    async with running(stage.commands.run):
        result = await stage.order("all", '{"action": "pause", "id": "n1"}', correlation=b"c")
    assert result == {"id": "n1", "ok": True, "action": "pause", "tiers": ["hub", "edge"]}
    assert await stage.actions() == [("pause", "edge", "mqtt"), ("pause", "hub", "mqtt")]
    (_, message) = stage.broker.published[0]
    assert (message.topic, message.correlation) == (f"{PREFIX}/cmd/result", b"c")
    assert stage.looks == 1


async def test_what_is_so_already_is_no_change_and_not_on_record(stage: Stage) -> None:
    async with running(stage.commands.run):
        await stage.order("tier/hub", "pause")
        assert (await stage.order("tier/hub", "pause"))["tiers"] == []
        assert (await stage.order("all", "resume"))["tiers"] == ["hub"]
    assert [action for action, *_ in await stage.actions()] == ["resume", "pause"]


@pytest.mark.parametrize("rest", ["foo", "pause", "tier", "tier/hub/x", ""])
async def test_order_to_a_topic_that_takes_none_is_told_which_there_are(stage: Stage, rest: str) -> None:
    async with running(stage.commands.run):
        result = await stage.order(rest, '{"action": "pause", "id": "n2"}', correlation=b"c")
    assert (result["id"], result["ok"], result["error"]["code"]) == ("n2", False, "bad_request")
    assert "cmd/all, cmd/tier/NAME or cmd/route/NAME" in result["error"]["message"]
    (_, message) = stage.broker.published[0]
    assert (message.topic, message.correlation) == (f"{PREFIX}/cmd/result", b"c")
    assert (stage.paused, await stage.actions()) == ({}, [])


async def test_result_that_comes_back_is_no_order(stage: Stage, database: FlakyDatabase) -> None:
    result = incoming('{"action": "pause"}', topic=f"{PREFIX}/cmd/result")
    async with running(stage.commands.run):
        assert stage.commands.take(result)
        await settled(database)
    assert (stage.broker.acknowledged, stage.broker.bodies, stage.paused) == ([result], [], {})


async def test_nothing_but_orders_is_taken(stage: Stage) -> None:
    assert not stage.commands.take(incoming("pause"))
    assert not stage.commands.take(incoming("pause", topic=None))


@pytest.mark.parametrize(("is_on", "is_retained"), [(False, False), (True, True)])
async def test_order_is_passed_over(
    store: Store, database: FlakyDatabase, clock: FakeClock, is_on: bool, is_retained: bool
) -> None:
    stage = Stage(store, database, clock, is_on=is_on)
    passed = incoming("pause", topic=f"{PREFIX}/cmd/tier/hub", is_retained=is_retained)
    async with running(stage.commands.run):
        assert stage.commands.take(passed)
        await settled(database)
    assert (stage.paused, stage.looks, stage.broker.bodies) == ({}, 0, [])
    assert stage.broker.acknowledged[0] == passed, "it must not come again"


async def test_orders_are_limited_so_that_the_record_keeps_what_others_did(stage: Stage) -> None:
    async with running(stage.commands.run):
        for number in range(PER_MINUTE):
            await stage.order("tier/hub", ("pause", "resume")[number % 2])
        assert (await stage.order("tier/hub", "pause"))["error"]["code"] == "rate_limited"
        stage.clock.advance(1.0)
        assert (await stage.order("tier/hub", "pause"))["ok"]


async def test_flood_of_orders_is_bounded(stage: Stage) -> None:
    order = incoming("pause", topic=f"{PREFIX}/cmd/tier/moon")
    for mid in range(MAX_WAITING + 9):
        assert stage.commands.take(replace(order, mid=mid))
    async with running(stage.commands.run):
        await until(lambda: len(stage.broker.bodies) == MAX_WAITING)
    assert len(stage.broker.acknowledged) == MAX_WAITING + 9


async def test_order_that_cannot_be_written_down_says_so(stage: Stage) -> None:
    async with running(stage.commands.run):
        stage.database.error = StoreError("disk full")
        result = await stage.order("tier/hub", '{"action": "pause", "id": 1}')
        assert (result["ok"], result["id"], result["error"]["code"]) == (False, "1", "internal")
        stage.database.error = None
        assert (await stage.order("tier/hub", "pause"))["ok"]


async def test_route_is_held_back_and_goes_on(stage: Stage) -> None:
    async with running(stage.commands.run):
        assert (await stage.order("route/frost", "pause"))["routes"] == ["frost"]
        assert list(stage.store.paused_routes) == ["frost"]
        assert (await stage.order("route/frost", "pause"))["routes"] == [], "it is so already"
        assert (await stage.order("route/frost", "resume"))["routes"] == ["frost"]
        assert "no route" in (await stage.order("route/moon", "pause"))["error"]["message"]
    assert await stage.actions() == [("resume", "route frost", "mqtt"), ("pause", "route frost", "mqtt")]
