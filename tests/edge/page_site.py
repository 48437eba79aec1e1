"""The pages as they are served, over real sockets, on a real store: what their tests start from."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
from fakes import START_MS, FakeClock
from web_site import OPERATOR, TOKENS, Api, serving

from mqrouter.core.states import OPEN
from mqrouter.edge.store.store import Store
from mqrouter.edge.web.options import TcpOptions
from mqrouter.edge.web.pages.site import PageSite
from mqrouter.edge.web.pages.sources import Setting, Sources
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.desk import Desk
from mqrouter.flow.errands import Errands
from mqrouter.flow.tiers import TierBoard
from mqrouter.trends import SERIES

STEP_S = 0.02


class SomeTrends:
    """An hour of samples, some of them missing."""

    def __init__(self) -> None:
        self.samples = 240

    def shown(self, *, is_day: bool) -> dict[str, Any]:
        at_ms = [START_MS + 15_000 * number for number in range(self.samples)]
        return {"at_ms": at_ms} | {
            name: [None if n % 50 == 49 or name == "power_w" else float(n) for n in range(self.samples)]
            for name in SERIES
        }

    def latest(self) -> dict[str, float | None]:
        return dict.fromkeys(SERIES, 84.0) | {"per_minute": 4.0, "power_w": None}

    def latencies(self) -> dict[str, list[tuple[float, int]]]:
        return {"hub": [(0.05, 3), (1.0, 9), (float("inf"), 1)], "edge": [(0.05, 0), (1.0, 0), (float("inf"), 0)]}

    def routes(self) -> dict[str, int]:
        return {"frost": 3, "_none": 1}


@dataclass
class Pages:
    """A browser without scripts: keeps cookies, follows redirects, fills in forms."""

    api: Api
    site: PageSite
    trends: SomeTrends
    settings: list[Setting]
    session: aiohttp.ClientSession
    status: dict[str, Any] = field(default_factory=dict)

    async def get(self, path: str, *, token: str | None = None, **more: Any) -> tuple[int, str]:
        headers = {"Accept": "text/html"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        headers |= dict(more.pop("headers", {}))
        async with self.session.get(self.api.url + path, headers=headers, **more) as response:
            return response.status, await response.text()

    async def post(self, path: str, fields: Any, *, token: str | None = None, **more: Any) -> tuple[int, str]:
        headers = {"Accept": "text/html", "Origin": self.api.url, "Sec-Fetch-Site": "same-origin"}
        headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= dict(more.pop("headers", {}))
        async with self.session.post(self.api.url + path, data=fields, headers=headers, **more) as response:
            return response.status, await response.text()

    async def log_in(self, token: str = OPERATOR) -> str:
        """Returns the overview, or the form with what is wrong."""
        _, form = await self.get("/login")
        _, text = await self.post("/login", hidden(form) | {"token": token})
        return text


def hidden(text: str) -> dict[str, str]:
    """Returns the hidden fields of a page; of several of one name the last."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text)
    return {name: unescape(value) for name, value in found}


@asynccontextmanager
async def browsing(store: Store, folder: Path, clock: FakeClock, tcp: TcpOptions = TOKENS) -> AsyncIterator[Pages]:
    found: list[Pages] = []

    def build(desk: Desk, board: TierBoard) -> PageSite:
        trends, settings = SomeTrends(), [Setting("mqtt.host", '"127.0.0.1"', "mqrouter.toml:3:1")]

        async def snapshot() -> dict[str, Any]:
            return some_snapshot(store, board)

        async def explain(
            text: str, *, device: str | None, strategy: str | None, is_private: bool
        ) -> Mapping[str, Any]:
            if strategy == "moon":
                raise RequestError(ErrorCode.BAD_REQUEST, "the strategy 'moon' cannot be used")
            return {"route": "frost", "reason": "above_threshold", "score": 0.9, "nearest": [], "ranked": []}

        async def models() -> list[dict[str, Any]]:
            return [{"name": "mini", "purpose": "embed", "bytes": 1, "state": "present", "used_by": ["decisions"]}]

        sources = Sources(
            gateway="farm",
            desk=desk,
            trends=trends,
            status=lambda: some_status(store, board) | found[0].status,
            snapshot=snapshot,
            info=lambda: {"routes": {"frost": ["hub"], "talk": ["edge"]}, "tiers": some_tiers(board)},
            explain=explain,  # type: ignore[arg-type]
            feedback=Errands(None, store, desk, clock, desk.routes).by_name()["feedback"],  # type: ignore[arg-type]
            strategies=lambda: ["knn", "semantic"],
            settings=lambda: settings,
            models=models,
        )
        site = PageSite(sources, tcp, clock.monotonic_s, step_s=STEP_S)
        found.append(Pages(None, site, trends, settings, None))  # type: ignore[arg-type]
        return site

    async with serving(store, folder, clock, tcp, build=build) as api:
        found[0].api = api
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as found[0].session:
            yield found[0]


def some_tiers(board: TierBoard) -> dict[str, Any]:
    more = {"kind": "ollama", "model": "m", "trusted": False, "concurrency": 4, "context_chars": 1}
    return dict.fromkeys(board.breakers, more)


def some_snapshot(store: Store, board: TierBoard) -> dict[str, Any]:
    return {
        "now_ms": START_MS,
        "broker": {"connected": True},
        "requests": {str(state): store.counts[state] for state in OPEN},
        "oldest_at_ms": START_MS - 5_000,
        "delivered": 0,
        "tiers": {
            name: {
                "state": "paused" if name in board.paused else "up" if board.is_available(name) else "down",
                "in_flight": 0,
            }
            for name in board.breakers
        },
        "degraded": [],
    }


def some_status(store: Store, board: TierBoard) -> dict[str, Any]:
    """As the daemon's, so far as pages look at it."""
    return {
        "broker": {"address": "127.0.0.1:1883", "connected": True, "error": None},
        "config_hash": "0123456789abcdef",
        "restart_needed": [],
        "uptime_s": 12.0,
        "degraded": [],
        "disk": {"level": "enough", "free_bytes": 10**10},
        "salvage": None,
        "paused_routes": {name: {"paused_by": pause.actor} for name, pause in store.paused_routes.items()},
        "abstained": 0,
        "tiers": {
            name: {
                "breaker": str(breaker.state),
                "reason": None,
                "held_s": 0.0,
                "paused_by": None,
                "limit": None,
                "limits": [{"name": "budget_per_day", "used": 0.5, "limit": 2.0, "resets_in_s": 60.0}],
                "in_flight": 0,
                "latency_ms": None,
                "wait_ms": 0.0,
                "model": "m",
            }
            for name, breaker in board.breakers.items()
        },
    }
