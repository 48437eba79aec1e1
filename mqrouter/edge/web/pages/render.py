"""Templates to pages: everything that is put in is text, and becomes no markup."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mqrouter import __version__
from mqrouter.edge.web.guard import Caller, Guard
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages import words
from mqrouter.edge.web.pages.assets import Assets
from mqrouter.edge.web.pages.forms import FormTokens, Notes

FOLDER = Path(__file__).with_name("templates")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    # Without any referrer a browser says "null" for where a form comes from, and that is refused.
    "Referrer-Policy": "same-origin",
}
PAGES = (
    ("/", "Overview"),
    ("/queue", "Queue"),
    ("/decisions", "Decisions"),
    ("/explain", "Why?"),
    ("/tiers", "Tiers"),
    ("/config", "Configuration"),
    ("/actions", "Actions"),
)


@dataclass(frozen=True, slots=True)
class Renderer:
    """`page` for what was asked by a known caller, `error` for what was not."""

    gateway: str
    guard: Guard
    assets: Assets
    tokens: FormTokens
    notes: Notes
    environment: Environment

    async def page(
        self, request: web.Request, caller: Caller, template: str, title: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        return await self._render(
            template,
            status,
            title=title,
            role=caller.role.name.lower(),
            actor=caller.actor,
            is_in_session=self.guard.sessions.id_of(request) is not None,
            why_not=self.guard.why_not_operator(caller.role),
            can_log_in=self.guard.has_tokens,
            is_shown=caller.role is not Role.NOBODY,
            csrf=self.tokens.token(request, caller.actor),
            path=request.path,
            here=str(request.rel_url),
            note=self.notes.find(request.query.get("note", "")),
            **values,
        )

    def after(self, path: str, text: str) -> web.Response:
        """Returns the way to a page that says what became of an order: to load that page again repeats nothing."""
        path, _, query = path.partition("?")
        kept = [(name, value) for name, value in parse_qsl(query) if name != "note"]
        location = f"{path}?{urlencode([*kept, ('note', self.notes.keep(text))])}"
        return web.Response(status=303, headers={"Location": location})

    async def _render(self, template: str, status: int, **values: Any) -> web.Response:
        found = self.environment.get_template(template)
        text = await asyncio.to_thread(found.render, values)  # milliseconds on a small device: others go on meanwhile
        response = web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)
        response.enable_compression()
        return response


def renderer(gateway: str, guard: Guard) -> Renderer:
    assets = Assets()
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"gateway": gateway, "version": __version__, "urls": assets.urls, "pages": PAGES}
    environment.filters |= {
        "age": words.age,
        "cell": words.cell,
        "clock": words.clock,
        "counted": words.counted,
        "figure": words.figure,
        "icon": words.icon,
        "iso": words.iso,
        "kind": words.kind,
        "quoted": lambda text: quote(str(text), safe=""),
        "size": words.size,
        "spaced": words.spaced,
    }
    return Renderer(gateway, guard, assets, FormTokens(guard.sessions), Notes(), environment)
