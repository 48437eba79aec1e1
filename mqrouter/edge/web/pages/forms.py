"""What a form brings: only from one of our own pages, whose tokens nobody else can read."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from urllib.parse import urlsplit

from aiohttp import web
from multidict import MultiDict

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.routes import Call
from mqrouter.edge.web.sessions import Sessions

FORM = "application/x-www-form-urlencoded"
MAX_NOTES = 200


class FormTokens:
    """One per session; without one, per caller."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._key = secrets.token_bytes(32)

    def token(self, request: web.Request, actor: str) -> str:
        whose = self._sessions.id_of(request) or f"actor {actor}"
        return hmac.new(self._key, whose.encode(), hashlib.sha256).hexdigest()[:32]

    async def read(self, call: Call) -> MultiDict[str]:
        """Returns the fields. Raises ApiError where they do not come from a page of ours."""
        request = call.request
        if request.content_type != FORM or (request.charset or "utf-8").lower() != "utf-8":
            raise ApiError(415, "unsupported_type", "send the form of the page")
        fields = MultiDict((name, str(value)) for name, value in (await request.post()).items())
        given = fields.get("csrf", "").encode()
        if not hmac.compare_digest(given, self.token(request, call.caller.actor).encode()):
            raise ApiError(403, "stale_form", "this form is out of date: go back, load the page again, and repeat")
        return fields


class Notes:
    """What became of an order, shown by the page that comes after it: kept here, so that no link can pretend one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, str] = OrderedDict()

    def keep(self, text: str) -> str:
        name = secrets.token_urlsafe(9)
        self._kept[name] = text
        if len(self._kept) > MAX_NOTES:
            self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> str | None:
        return self._kept.get(name)


def own_path(given: str | None, default: str) -> str:
    """Returns a path of this site; `default` for anything that leads elsewhere."""
    if not given or not given.startswith("/") or given.startswith(("//", "/\\")) or not given.isprintable():
        return default
    parts = urlsplit(given)
    return default if parts.scheme or parts.netloc else given
