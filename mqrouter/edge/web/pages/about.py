"""What the gateway is: its tiers and models, its configuration, what was ordered; and why a question goes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.pages.sources import Setting, Sources
from mqrouter.edge.web.routes import Call, Route, page
from mqrouter.errors import MqrouterError

MAX_QUESTION_CHARS = 16_000
ACTIONS = 100


class About:
    def __init__(self, sources: Sources, render: Renderer) -> None:
        self._sources = sources
        self._render = render

    def routes(self) -> list[Route]:
        return [
            page("GET", "/tiers", Role.VIEWER, self.tiers, "Tiers and models."),
            page("GET", "/config", Role.VIEWER, self.config, "The configuration in force."),
            page("GET", "/actions", Role.VIEWER, self.actions, "What was ordered."),
            page("GET", "/explain", Role.VIEWER, self.explain_form, "Why would this go where?"),
            page("POST", "/explain", Role.VIEWER, self.explain, "Why would this go where?"),
        ]

    async def tiers(self, call: Call) -> web.Response:
        sources = self._sources
        snapshot, status, info = await sources.snapshot(), sources.status(), sources.info()
        tiers = [
            {"worker": None} | info["tiers"].get(name, {}) | tier | {"name": name} | snapshot["tiers"][name]
            for name, tier in status["tiers"].items()
        ]
        paused = status["paused_routes"]
        routes = [
            {"name": name, "to": info["routes"].get(name, ()), "paused_by": paused.get(name, {}).get("paused_by")}
            for name in sources.desk.routes()
        ]
        return await self._render.page(
            call.request,
            call.caller,
            "tiers.html",
            "Tiers and routes",
            tiers=tiers,
            routes=routes,
            models=await sources.models(),
        )

    async def config(self, call: Call) -> web.Response:
        status = self._sources.status()
        return await self._render.page(
            call.request,
            call.caller,
            "config.html",
            "Configuration",
            config_hash=status["config_hash"],
            restart_needed=status["restart_needed"],
            sections=_sections(self._sources.settings()),
        )

    async def actions(self, call: Call) -> web.Response:
        rows = await self._sources.desk.actions(ACTIONS)
        return await self._render.page(call.request, call.caller, "actions.html", "Actions", rows=rows)

    async def explain_form(self, call: Call) -> web.Response:
        return await self._explained(call, {"question": "", "device": "", "strategy": "", "private": ""})

    async def explain(self, call: Call) -> web.Response:
        fields = await self._render.tokens.read(call)
        given = {name: fields.get(name, "").strip() for name in ("question", "device", "strategy", "private")}
        if not given["question"]:
            return await self._explained(call, given, problem="Write a question first.", status=400)
        if len(given["question"]) > MAX_QUESTION_CHARS:
            return await self._explained(
                call, given, problem=f"At most {MAX_QUESTION_CHARS} characters are looked at.", status=400
            )
        try:
            found = await self._sources.explain(
                given["question"],
                device=given["device"] or None,
                strategy=given["strategy"] or None,
                is_private=given["private"] == "1",
            )
        except MqrouterError as error:
            return await self._explained(call, given, problem=f"It cannot be decided: {error}.", status=400)
        return await self._explained(call, given, found=found)

    async def _explained(
        self,
        call: Call,
        given: dict[str, str],
        *,
        found: dict[str, Any] | None = None,
        problem: str | None = None,
        status: int = 200,
    ) -> web.Response:
        return await self._render.page(
            call.request,
            call.caller,
            "explain.html",
            "Why would this go where?",
            status=status,
            given=given,
            found=found,
            problem=problem,
            strategies=self._sources.strategies(),
            max_chars=MAX_QUESTION_CHARS,
        )


def _sections(settings: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """Returns the settings by the first part of their keys."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        found.setdefault(setting.key.partition(".")[0].partition("[")[0], []).append(setting)
    return list(found.items())
