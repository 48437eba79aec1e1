"""What the broker keeps of this gateway for whoever comes later: info, stats, and Home Assistant's discovery."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from mqrouter.core.request import JsonObject, OutMessage
from mqrouter.errors import StoreError, StoreFatalError
from mqrouter.flow.events import Events
from mqrouter.flow.home_assistant import HomeAssistant
from mqrouter.flow.ports import Clock, Retainer
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("bulletin")

LOOK_S = 1.0  # what matters is told within this, and never more often


@dataclass(frozen=True, slots=True)
class Standing:
    """What matters: with a change of it the stats go out before their time."""

    tiers: Mapping[str, str]
    """Of each: up, down, paused or limited."""
    degraded: tuple[str, ...]
    is_waiting: bool
    """Whether anything is in the queue at all."""
    paused_routes: tuple[str, ...] = ()


class Bulletin:
    """`info` and `stats` say what is true now; `stats` may read the database, `standing` may not."""

    def __init__(
        self,
        retainer: Retainer,
        clock: Clock,
        prefix: str,
        *,
        info: Callable[[], JsonObject],
        stats: Callable[[], Awaitable[JsonObject]],
        standing: Callable[[], Standing],
        events: Events,
        home_assistant: HomeAssistant,
        interval_s: float,
    ) -> None:
        self._retainer = retainer
        self._clock = clock
        self._prefix = prefix
        self._info = info
        self._stats = stats
        self._standing = standing
        self._events = events
        self._home_assistant = home_assistant
        self._interval_s = interval_s
        self._told: Standing | None = None
        """As of the stats that the broker has."""
        self._seen: Standing | None = None
        self._stats_due_s = 0.0
        self._is_info_due = True
        self._woken = Wakeup()

    def connected(self) -> None:
        """All is said anew: the broker may be another, or have forgotten."""
        self._home_assistant.connected()
        self._is_info_due = True
        self._stats_due_s = 0.0
        self._woken.give()

    def take_birth(self, topic: str | None, payload: bytes) -> bool:
        """Takes what Home Assistant says of itself; False for anything else."""
        is_its = self._home_assistant.take_birth(topic, payload)
        if is_its:
            self._woken.give()
        return is_its

    def changed(self) -> None:
        """The info is another."""
        self._is_info_due = True
        self.look()

    def look(self) -> None:
        """What matters may have changed: without waiting for the next look."""
        self._woken.give()

    async def run(self) -> None:
        while True:
            await self._woken.wait(LOOK_S)
            await self._look()

    async def _look(self) -> None:
        standing = self._standing()
        self._tell_tiers(standing)
        is_leaving = self._home_assistant.is_leaving
        for message in self._home_assistant.due():
            if not self._retainer.retain(message):
                return
            self._home_assistant.told(message)
        if self._is_info_due:
            self._is_info_due = not self._retain("info", self._info())
        now_s = self._clock.monotonic_s()
        is_time = now_s >= self._stats_due_s
        if is_time or standing != self._told:
            await self._tell_stats(standing, now_s)
        if is_leaving and is_time:
            self._home_assistant.settled()

    def _tell_tiers(self, standing: Standing) -> None:
        before = {} if self._seen is None else self._seen.tiers
        self._seen = standing
        for name, state in standing.tiers.items():
            if (was := before.get(name, state)) != state:
                self._events.tier_changed(name, was, state)

    async def _tell_stats(self, standing: Standing, now_s: float) -> None:
        try:
            stats = await self._stats()
        except StoreFatalError:
            raise
        except StoreError as error:
            log.warning("bulletin.stats_failed", error=str(error))
            self._stats_due_s, self._told = now_s + self._interval_s, standing
            return
        if self._retain("stats", stats):
            self._stats_due_s, self._told = now_s + self._interval_s, standing

    def _retain(self, name: str, body: JsonObject) -> bool:
        topic = f"{self._prefix}/{name}"
        return self._retainer.retain(OutMessage(topic, json.dumps(body).encode(), None, "application/json", ()))
