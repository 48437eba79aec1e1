"""Who has logged in with a browser: by the id in their cookie, which is not the token and ends with the process."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web

from mqrouter.edge.web.options import Role

IDLE_S = 12 * 3600.0
MAX_SESSIONS = 100


class Sessions:
    """`gateway` is in the cookie's name: a browser sends it to every port of a host, so of two gateways that are
    looked at through one machine each must know its own.
    """

    def __init__(self, gateway: str, monotonic_s: Callable[[], float]) -> None:
        self.cookie = f"mqrouter_{hashlib.sha256(gateway.encode()).hexdigest()[:8]}"
        self._monotonic_s = monotonic_s
        self._open: OrderedDict[str, tuple[Role, float]] = OrderedDict()

    def open(self, role: Role, request: web.Request, response: web.Response, *, is_secure: bool) -> None:
        """The response brings the browser a session of this role, in place of the one it had."""
        self._open.pop(request.cookies.get(self.cookie, ""), None)
        if len(self._open) >= MAX_SESSIONS:
            self._open.popitem(last=False)  # the one that was silent for longest
        name = secrets.token_urlsafe(24)
        self._open[name] = (role, self._monotonic_s())
        response.set_cookie(
            self.cookie, name, httponly=True, samesite="Strict", secure=is_secure, path="/", max_age=int(IDLE_S)
        )

    def id_of(self, request: web.Request) -> str | None:
        """Returns the id of the request's session, where it is one; to be kept secret as the token is."""
        name = request.cookies.get(self.cookie)
        return name if name is not None and self.role_of(request) is not Role.NOBODY else None

    def role_of(self, request: web.Request) -> Role:
        name = request.cookies.get(self.cookie, "")
        if not self.is_open(name):
            return Role.NOBODY
        role, _ = self._open[name]
        self._open[name] = (role, self._monotonic_s())
        self._open.move_to_end(name)
        return role

    def is_open(self, name: str) -> bool:
        """Returns whether there is a session of that id; to ask does not prolong it."""
        if name not in self._open:
            return False
        _, seen_s = self._open[name]
        if self._monotonic_s() - seen_s > IDLE_S:
            del self._open[name]
        return name in self._open

    def is_over(self, request: web.Request) -> bool:
        """Returns whether the browser has a session that is none any more: of an earlier life, or silent for long."""
        return self.cookie in request.cookies and self.id_of(request) is None

    def close(self, request: web.Request, response: web.Response) -> None:
        self._open.pop(request.cookies.get(self.cookie, ""), None)
        response.del_cookie(self.cookie, path="/", httponly=True, samesite="Strict")
