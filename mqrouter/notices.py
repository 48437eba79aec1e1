"""What the gateway says of itself over MQTT: no address, no secret, no text, and of private requests counts only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mqrouter import __version__
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.flow.bulletin import Standing
from mqrouter.flow.deliver import Deliver
from mqrouter.flow.intake import Intake
from mqrouter.flow.ports import Clock
from mqrouter.flow.room import Room
from mqrouter.flow.tiers import TierBoard
from mqrouter.settings import Settings

OPEN = (State.RECEIVED, State.PENDING, State.LEASED, State.DROPPED)


@dataclass(frozen=True, slots=True)
class Notices:
    """Reads the running parts; changes none. `started` are the settings the daemon runs with."""

    started: Settings
    clock: Clock
    store: Store
    board: TierBoard
    intake: Intake
    deliver: Deliver
    room: Room
    abstained: Callable[[], int]
    oldest_ms: Callable[[], Awaitable[int | None]]
    """When the oldest request without an answer was received; may read the database."""

    def info(self, current: Settings, config_hash: str) -> dict[str, Any]:
        """Returns what does not change by itself; `current` are the settings as of the latest reload."""
        settings = self.started
        return {
            "version": __version__,
            "gateway": settings.gateway.name,
            "prefix": settings.prefix,
            "config_hash": config_hash,
            "strategy": current.routing.strategy,
            "routes": {name: list(route.to) for name, route in current.routes.items()},
            "embedder": settings.embedder.model,
            "tiers": {
                name: {
                    "kind": tier.kind,
                    "model": tier.model,
                    "trusted": tier.trusted,
                    "concurrency": tier.concurrency,
                    "context_chars": tier.context_chars,
                }
                for name, tier in settings.tiers.items()
            },
            "limits": {
                "max_payload_bytes": settings.limits.max_payload_bytes,
                "device_rate_per_minute": settings.limits.device_rate_per_minute,
                "default_ttl_s": settings.limits.default_ttl_s,
                "max_age_s": settings.queue.max_age_s,
                "max_requests": settings.queue.max_requests,
                "max_bytes": settings.queue.max_bytes,
            },
            "commands": settings.mqtt.commands,
            "events": list(settings.mqtt.events),
            "stats_interval_s": settings.mqtt.stats_interval_s,
        }

    async def stats(self) -> dict[str, Any]:
        """Returns counts, and the totals since the start. Raises StoreError."""
        oldest_ms = await self.oldest_ms()
        held, came, standing = self.store.holdings.total, self.intake.counts, self.standing()
        return {
            "requests": {str(state): self.store.counts[state] for state in OPEN},
            "queue": {
                "requests": held.requests,
                "bytes": held.bytes,
                "oldest_age_s": 0 if oldest_ms is None else max(0, (self.clock.now_ms() - oldest_ms) // 1000),
            },
            "tiers": {
                name: {"state": state, "in_flight": self.board.in_flight[name]}
                for name, state in standing.tiers.items()
            },
            "paused": bool(standing.tiers) and set(standing.tiers.values()) == {"paused"},
            "paused_routes": list(standing.paused_routes),
            "totals": {
                "accepted": came["new"],
                "absorbed": came["absorbed"],
                "refused": came["refused"] + came["reused"],
                "dropped": self.store.dropped,
                "abstained": self.abstained(),
                "answered": self.deliver.delivered,
            },
            "degraded": list(standing.degraded),
        }

    def standing(self) -> Standing:
        return Standing(
            {name: self._state(name) for name in self.board.breakers},
            tuple(self._degraded()),
            self.store.holdings.total.requests > 0,
            tuple(sorted(self.store.paused_routes)),
        )

    def _state(self, name: str) -> str:
        if name in self.board.paused:
            return "paused"
        if self.board.over(name) is not None:
            return "limited"
        return "up" if self.board.is_available(name) else "down"

    def _degraded(self) -> Sequence[str]:
        found = [] if self.room.level is DiskLevel.ENOUGH else [f"disk_{self.room.level}"]
        return [*found, "store_failing"] if self.intake.is_store_failing else found
