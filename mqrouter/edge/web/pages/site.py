"""All pages, and what they have in common: one table of routes beside the API's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.guard import SAFE_METHODS, Caller, Guard
from mqrouter.edge.web.options import Role, TcpOptions
from mqrouter.edge.web.pages.about import About
from mqrouter.edge.web.pages.entrance import LOGIN, OVER, Entrance, to_login
from mqrouter.edge.web.pages.judging import Judging
from mqrouter.edge.web.pages.live import STEP_S, Live
from mqrouter.edge.web.pages.looking import Looking
from mqrouter.edge.web.pages.ordering import Ordering
from mqrouter.edge.web.pages.overview import Overview
from mqrouter.edge.web.pages.render import renderer
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.routes import Route
from mqrouter.edge.web.sessions import Sessions

TITLES = {400: "Not understood", 401: "Log in first", 403: "Not allowed", 404: "Not found", 429: "Too many tries"}


class PageSite:
    """Implements the server's `Site`."""

    def __init__(
        self,
        sources: Sources,
        tcp: TcpOptions | None,
        monotonic_s: Callable[[], float],
        *,
        step_s: float = STEP_S,
    ) -> None:
        self.guard = Guard(tcp, monotonic_s, Sessions(sources.gateway, monotonic_s))
        self._render = render = renderer(sources.gateway, self.guard)
        self._live = Live(sources.snapshot, self.guard.sessions, step_s)
        self.routes: Sequence[Route] = [
            *Overview(sources, render).routes(),
            *Looking(sources, render).routes(),
            *Ordering(sources, render).routes(),
            *Judging(sources, render).routes(),
            *About(sources, render).routes(),
            *Entrance(render).routes(),
            *self._live.routes(),
            render.assets.route(),
        ]

    async def error_page(self, request: web.Request, error: ApiError) -> web.Response:
        if error.status == 401 and request.method in SAFE_METHODS and request.path != LOGIN:
            return to_login(request)
        if error.status == 401 and self.guard.sessions.is_over(request):
            error = ApiError(401, error.code, f"{OVER}; nothing was changed", headers=error.headers)
        title = TITLES.get(error.status, "It did not work")
        message = sentence(str(error))
        response = await self._render.page(
            request, self._caller(request), "error.html", title, status=error.status, code=error.status, message=message
        )
        response.headers.update(error.headers or {})
        return response

    def _caller(self, request: web.Request) -> Caller:
        """Returns who asks as far as it is known: the page about an error shows no more than they may see."""
        try:
            return self.guard.admit(request, Role.VIEWER, is_page=True)
        except ApiError:
            return Caller(Role.NOBODY, "nobody")

    @property
    def streams(self) -> int:
        """Pages that follow what changes, now."""
        return self._live.streams

    def close(self) -> None:
        self._live.close()


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
