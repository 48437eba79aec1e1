"""What the broker keeps of this gateway: true, not too often, and said again where it may be lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import PREFIX, FakeClock, running, until

from mqrouter.core.discovery import Announced, Gateway, config_topic
from mqrouter.core.request import OutMessage
from mqrouter.errors import StoreError
from mqrouter.flow.bulletin import LOOK_S, Bulletin, Standing
from mqrouter.flow.events import Events
from mqrouter.flow.home_assistant import HomeAssistant

HOUSE = config_topic("homeassistant", "farm")
OLD = Announced(HOUSE, {"tier_old": "binary_sensor"})


class Link:
    """Takes what is retained, and what is announced, while it is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.messages: list[OutMessage] = []

    def retain(self, message: OutMessage) -> bool:
        if self.is_up:
            self.messages.append(message)
        return self.is_up

    announce = retain

    @property
    def names(self) -> list[str]:
        return [message.topic.removeprefix(f"{PREFIX}/") for message in self.messages]


class Record:
    def __init__(self, kept: Announced | None = None) -> None:
        self.kept = kept

    def read(self) -> Announced | None:
        return self.kept

    def write(self, announced: Announced) -> None:
        self.kept = announced

    def forget(self) -> None:
        self.kept = None


class Stage:
    def __init__(self, clock: FakeClock, *, house: str | None = None, record: Record | None = None) -> None:
        self.clock, self.link, self.record = clock, Link(), record or Record()
        self.standing = Standing({"hub": "up"}, (), False)
        self.reads = 0
        self.error: StoreError | None = None
        self.house = HomeAssistant(self.record, house, lambda: Gateway("farm", "1", PREFIX, ("hub",), True))
        self.bulletin = Bulletin(
            self.link,
            clock,
            PREFIX,
            info=lambda: {"version": "1"},
            stats=self._stats,
            standing=lambda: self.standing,
            events=Events(self.link, clock, PREFIX, ["tier"]),
            home_assistant=self.house,
            interval_s=30.0,
        )

    async def _stats(self) -> dict[str, Any]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return {"reads": self.reads}

    async def look(self, seconds: float = LOOK_S) -> list[str]:
        """Time passes; returns what was said meanwhile."""
        before = len(self.link.messages)
        self.clock.advance(seconds)
        await self.bulletin._look()
        return self.link.names[before:]


@pytest.fixture
def stage(clock: FakeClock) -> Stage:
    return Stage(clock)


async def test_service_tells_all_once_connected(stage: Stage) -> None:
    async with running(stage.bulletin.run):
        stage.bulletin.connected()
        await until(lambda: stage.link.names == ["info", "stats"])


async def test_stats_go_out_at_their_interval_and_not_before(stage: Stage) -> None:
    assert await stage.look() == ["info", "stats"]
    assert [await stage.look() for _ in range(29)] == [[]] * 29
    assert await stage.look() == ["stats"]
    assert stage.reads == 2, "the database is left alone in between"


@pytest.mark.parametrize(
    "standing",
    [
        Standing({"hub": "up"}, ("disk_low",), False),
        Standing({"hub": "up"}, (), True),
        Standing({"hub": "up"}, (), False, ("frost",)),
    ],
)
async def test_what_matters_goes_out_before_the_interval(stage: Stage, standing: Standing) -> None:
    await stage.look()
    stage.standing = standing
    assert (await stage.look(), await stage.look()) == (["stats"], [])


async def test_tier_that_changes_is_an_event_too(stage: Stage) -> None:
    await stage.look()
    stage.standing = Standing({"hub": "down"}, (), False)
    assert await stage.look() == ["event/tier", "stats"]
    assert json.loads(stage.link.messages[-2].payload) == {"tier": "hub", "was": "up", "state": "down"}


async def test_what_the_link_did_not_take_is_said_later(stage: Stage) -> None:
    stage.link.is_up = False
    assert await stage.look() == []
    stage.link.is_up = True
    assert await stage.look() == ["info", "stats"]


async def test_new_connection_is_told_everything(clock: FakeClock) -> None:
    stage = Stage(clock, house="homeassistant")
    first = await stage.look()
    stage.bulletin.connected()
    assert await stage.look(0.0) == first == [HOUSE, "info", "stats"]


async def test_reload_tells_the_info_alone(stage: Stage) -> None:
    await stage.look()
    stage.bulletin.changed()
    assert await stage.look() == ["info"]


async def test_store_that_does_not_read_costs_the_stats_and_no_more(stage: Stage) -> None:
    stage.error = StoreError("disk")
    assert await stage.look() == ["info"]
    assert (await stage.look(), stage.reads) == ([], 1)
    stage.error = None
    assert await stage.look(30.0) == ["stats"]


# --- Home Assistant ------------------------------------------------------------------------------------


async def test_birth_is_answered_with_the_device_and_other_news_with_nothing(clock: FakeClock) -> None:
    stage = Stage(clock, house="homeassistant")
    await stage.look()
    assert stage.bulletin.take_birth("homeassistant/status", b"offline")
    assert await stage.look() == []
    assert stage.bulletin.take_birth("homeassistant/status", b"online")
    assert (await stage.look(), await stage.look()) == ([HOUSE], [])
    assert not stage.bulletin.take_birth("elsewhere/status", b"online")


async def test_switched_off_it_takes_no_births_and_says_nothing(stage: Stage) -> None:
    assert not stage.bulletin.take_birth("homeassistant/status", b"online")
    assert HOUSE not in await stage.look()


async def test_device_is_removed_once_the_connection_has_lasted(clock: FakeClock) -> None:
    stage = Stage(clock, record=Record(OLD))
    stage.link.is_up = False
    await stage.look()
    stage.link.is_up = True
    assert (await stage.look())[0] == HOUSE
    assert stage.link.messages[0].payload == b""
    assert (await stage.look(), stage.record.kept) == ([], OLD)
    assert (await stage.look(30.0), stage.record.kept) == (["stats"], None)
    stage.bulletin.connected()
    assert HOUSE not in await stage.look()


async def test_removal_that_may_be_lost_is_sent_again(clock: FakeClock) -> None:
    stage = Stage(clock, record=Record(OLD))
    assert HOUSE in await stage.look()
    assert stage.record.kept == OLD
    stage.bulletin.connected()
    assert HOUSE in await stage.look()


async def test_tier_of_an_earlier_life_is_taken_from_the_device(clock: FakeClock) -> None:
    stage = Stage(clock, house="homeassistant", record=Record(OLD))
    await stage.look()
    components = json.loads(stage.link.messages[0].payload)["components"]
    assert components["tier_old"] == {"platform": "binary_sensor"}
    assert stage.record.kept is not None and "tier_old" not in stage.record.kept.components


async def test_device_under_another_prefix_is_removed(clock: FakeClock) -> None:
    stage = Stage(clock, house="ha", record=Record(OLD))
    await stage.look()
    assert [(message.topic, bool(message.payload)) for message in stage.link.messages[:2]] == [
        (HOUSE, False),
        ("ha/device/mqrouter_farm/config", True),
    ]
    assert stage.record.kept is not None and stage.record.kept.topic.startswith("ha/")
