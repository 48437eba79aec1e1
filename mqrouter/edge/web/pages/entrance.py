"""Logging in and out: a token once, then a session."""

from __future__ import annotations

from urllib.parse import quote

import structlog
from aiohttp import web

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages.forms import own_path
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.routes import Call, Route, page

log = structlog.get_logger("http")

LOGIN = "/login"
OVER = "the gateway was restarted or the session is over: log in again"


class Entrance:
    def __init__(self, render: Renderer) -> None:
        self._render = render

    def routes(self) -> list[Route]:
        return [
            page("GET", LOGIN, Role.NOBODY, self.form, "Log in."),
            page("POST", LOGIN, Role.NOBODY, self.log_in, "Log in."),
            page("POST", "/logout", Role.NOBODY, self.log_out, "Log out."),
        ]

    async def form(self, call: Call) -> web.Response:
        return await self._form(call, own_path(call.request.query.get("next"), "/"))

    async def log_in(self, call: Call) -> web.Response:
        fields = await self._render.tokens.read(call)
        onward = own_path(fields.get("next"), "/")
        address = call.request.remote
        try:
            role = self._render.guard.log_in(call.request, fields.get("token", "").strip())
        except ApiError as error:
            log.warning("http.login_refused", address=address, code=error.code)
            response = await self._form(call, onward, problem=str(error), status=error.status)
            response.headers.update(error.headers or {})
            return response
        log.info("http.logged_in", address=address, role=role.name.lower())
        response = web.Response(status=303, headers={"Location": onward})
        self._render.guard.sessions.open(role, call.request, response, is_secure=_is_secure(call.request))
        return response

    async def log_out(self, call: Call) -> web.Response:
        await self._render.tokens.read(call)
        response = web.Response(status=303, headers={"Location": "/"})
        self._render.guard.sessions.close(call.request, response)
        return response

    async def _form(self, call: Call, onward: str, *, problem: str | None = None, status: int = 200) -> web.Response:
        return await self._render.page(
            call.request,
            call.caller,
            "login.html",
            "Log in",
            status=status,
            next=onward,
            problem=problem,
            why=OVER if self._render.guard.sessions.is_over(call.request) else None,
        )


def to_login(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": f"{LOGIN}?next={quote(str(request.rel_url), safe='')}"})


def _is_secure(request: web.Request) -> bool:
    return request.secure or request.headers.get("X-Forwarded-Proto") == "https"
