"""What the pages show beside the API's own: read from the running parts when somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mqrouter.config import Loaded
from mqrouter.config.listing import entries, without_credentials
from mqrouter.core.states import State
from mqrouter.edge.system import machine_clocks
from mqrouter.edge.web.pages.sources import Setting
from mqrouter.errors import MqrouterError
from mqrouter.models import store as model_store
from mqrouter.notices import Notices
from mqrouter.report import Report
from mqrouter.settings import LocalTier, Settings

OPEN = (State.RECEIVED, State.PENDING, State.LEASED, State.DROPPED)


@dataclass(frozen=True, slots=True)
class Console:
    report: Report
    notices: Notices
    loaded: Callable[[], Loaded]
    oldest_ms: Callable[[], Awaitable[int | None]]
    """When the oldest request without an answer came in; may read the database."""

    async def snapshot(self) -> dict[str, Any]:
        """Returns what changes, small; times by the wall clock. Raises StoreError."""
        oldest_ms, report = await self.oldest_ms(), self.report
        wall_ms = machine_clocks().wall_ms
        standing = self.notices.standing()
        return {
            "now_ms": wall_ms,
            "broker": {"connected": report.link.status.is_connected},
            "requests": {str(state): report.store.counts[state] for state in OPEN},
            "oldest_at_ms": None if oldest_ms is None else oldest_ms + wall_ms - report.clock.now_ms(),
            "delivered": report.deliver.delivered,
            "accepted": report.intake.counts["new"],
            "tiers": {
                name: {"state": state, "in_flight": report.board.in_flight[name]}
                for name, state in standing.tiers.items()
            },
            "paused_routes": sorted(report.store.paused_routes),
            "degraded": list(standing.degraded),
        }

    def info(self) -> dict[str, Any]:
        loaded = self.loaded()
        return self.notices.info(loaded.settings, loaded.config_hash)

    def settings(self) -> list[Setting]:
        return [
            Setting(entry.key, None if entry.value is None else without_credentials(entry.value), str(entry.origin))
            for entry in entries(self.loaded())
        ]

    async def models(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(lambda: list(model_files(self.report.settings)))


def model_files(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields every model file that is there, and those that are configured and are not. Reads no file to its end."""
    used: dict[str, list[str]] = {settings.embedder.model: ["decisions"]}
    for name, tier in settings.tiers.items():
        if isinstance(tier, LocalTier):
            used.setdefault(tier.model, []).append(f"tier {name}")
    found = model_store.everything(settings.gateway.models_dir)
    for model in found:
        users = [user for name in (model.name, model.path.name) for user in used.pop(name, [])]
        yield {"name": model.name, "bytes": model.path.stat().st_size, "used_by": users} | _state(model)
    for name, users in used.items():
        yield {"name": name, "bytes": None, "used_by": users, "purpose": None, "state": "missing"}


def _state(model: model_store.ModelFile) -> dict[str, str | None]:
    try:
        return {"purpose": str(model.purpose), "state": str(model_store.quick_state(model))}
    except MqrouterError:
        return {"purpose": None, "state": "damaged: `mqrouter models verify` says more"}
