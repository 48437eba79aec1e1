"""The overview: how the gateway stands, and how it went of late."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages import words
from mqrouter.edge.web.pages.charts import Chart, bound, distribution, line_chart
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.routes import Call, Route, page


class Overview:
    def __init__(self, sources: Sources, render: Renderer) -> None:
        self._sources = sources
        self._render = render

    def routes(self) -> list[Route]:
        return [page("GET", "/", Role.VIEWER, self.page, "The overview.")]

    async def page(self, call: Call) -> web.Response:
        sources, is_day = self._sources, call.request.query.get("span") == "day"
        snapshot, status = await sources.snapshot(), sources.status()
        oldest_ms = snapshot["oldest_at_ms"]
        oldest_s = None if oldest_ms is None else max(0.0, (snapshot["now_ms"] - oldest_ms) / 1000)
        routes = sources.trends.routes()
        total = sum(routes.values())
        latencies = {name: counts for name, counts in sources.trends.latencies().items() if any(n for _, n in counts)}
        bounds = [upper for upper, _ in next(iter(latencies.values()), [])]
        return await self._render.page(
            call.request,
            call.caller,
            "overview.html",
            "Overview",
            snapshot=snapshot,
            standing=status,
            reasons={name: why_unused(tier) or _worker(tier) for name, tier in status["tiers"].items()},
            oldest_s=oldest_s,
            is_day=is_day,
            charts=_charts(
                _up_to_now(sources.trends.shown(is_day=is_day), sources.trends.latest(), snapshot, oldest_s or 0.0)
            ),
            routes=[(name, count, count / total) for name, count in routes.items()],
            latencies=[distribution(name, counts) for name, counts in latencies.items()],
            latency_rows=[
                (bound(upper), [counts[i][1] for counts in latencies.values()]) for i, upper in enumerate(bounds)
            ],
        )


def _up_to_now(
    data: dict[str, Any], latest: dict[str, float | None], snapshot: dict[str, Any], oldest_s: float
) -> dict[str, Any]:
    """Returns the samples with how it is now as the last: what is drawn agrees with what is said beside it."""
    now = latest | snapshot["requests"] | {"oldest_s": oldest_s, "at_ms": snapshot["now_ms"]}
    return {name: [*samples, now[name]] for name, samples in data.items()}


def _charts(data: dict[str, Any]) -> list[Chart]:
    depth = {"pending": "waiting", "leased": "being answered", "received": "to decide"}
    memory = {"router_mb": "router", "models_mb": "local models"}
    found = [
        line_chart("depth", "Requests without an answer", data, depth, "{:.0f}".format),
        line_chart("oldest", "Age of the oldest", data, {"oldest_s": "age"}, words.age),
        line_chart("answers", "Answers a minute", data, {"per_minute": "delivered"}, "{:.0f}".format),
        line_chart("memory", "Memory", data, _known(data, memory), "{:.0f} MB".format),
    ]
    if power := _known(data, {"power_w": "power"}):
        found.append(line_chart("power", "Power", data, power, "{:.3g} W".format))
    if heat := _known(data, {"temperature_c": "the hottest zone"}):
        found.append(line_chart("temperature", "Temperature", data, heat, "{:.0f} °C".format))
    return found


def _known(data: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    return {name: title for name, title in names.items() if any(value is not None for value in data[name])}


def why_unused(tier: dict[str, Any]) -> str | None:
    """Returns why a tier of the status is not asked."""
    if tier["paused_by"]:
        return f"paused by {tier['paused_by']}"
    if limit := tier["limit"]:
        return f"at its limit for {words.age(limit['for_s'])}: {limit['reason']}"
    if tier["held_s"]:
        return f"asked to be left alone for {words.age(tier['held_s'])}"
    return None if tier["reason"] is None else str(tier["reason"])


def _worker(tier: dict[str, Any]) -> str | None:
    if (worker := tier.get("worker")) is None:
        return None
    if worker["state"] == "unloaded":
        return f"unloaded: {worker['unloaded_because'] or 'loads on first use'}"
    resident = "" if worker["resident_mb"] is None else f", {worker['resident_mb']:.0f} MB"
    return f"model {worker['state']}{resident}"
