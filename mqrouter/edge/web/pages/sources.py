"""Where the pages have what they show from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection
from mqrouter.edge.web import api


class Desk(api.Desk, Protocol):
    async def decisions(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]: ...


class Trends(Protocol):
    """The last hour or day, as far as this process has seen it."""

    def shown(self, *, is_day: bool) -> dict[str, Any]: ...

    def latest(self) -> dict[str, float | None]: ...

    def latencies(self) -> dict[str, list[tuple[float, int]]]: ...

    def routes(self) -> dict[str, int]: ...


class Explain(Protocol):
    async def __call__(
        self, text: str, *, device: str | None, strategy: str | None, is_private: bool
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration: its value as TOML, None where it is not set; secrets as references only."""

    key: str
    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything is read when a page is asked for; nothing here may take long or hold the event loop up."""

    gateway: str
    desk: Desk
    trends: Trends
    status: Callable[[], dict[str, Any]]
    snapshot: Callable[[], Awaitable[dict[str, Any]]]
    """Small: what the pages show as it changes."""
    info: Callable[[], dict[str, Any]]
    """What does not change by itself: tiers, limits, routes."""
    explain: Explain
    feedback: api.Errand
    """Takes a verdict as the API does."""
    strategies: Callable[[], Sequence[str]]
    settings: Callable[[], Sequence[Setting]]
    models: Callable[[], Awaitable[list[dict[str, Any]]]]
