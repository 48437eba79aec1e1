"""The daemon's own door: HTTP on a unix socket in data_dir, for the commands on this machine."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from mqrouter.errors import ConfigError, Problem, StoreError

MAX_PATH_BYTES = 107  # sun_path in unix(7), less its terminating NUL
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CREDENTIALS = struct.Struct("3i")  # ucred in unix(7): process, user, group

OnRequest = Callable[[str, str], Awaitable[str | None]]
OnTier = Callable[[str, str], Awaitable[bool]]
Order = Callable[[Mapping[str, str], str], Awaitable[dict[str, Any]]]
NO_ORDERS: Mapping[str, Order] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Verbs:
    """What can be asked for. Those that change something take a name, or options, and who asked.

    `OnRequest` returns the state a request was found in, None for no such one; `OnTier` False for no such tier.
    `orders` are further things an operator may ask for, by name: POST /v1/orders/NAME?option=value.
    """

    status: Callable[[], dict[str, Any]]
    cancel: OnRequest
    retry: OnRequest
    pause: OnTier
    resume: OnTier
    orders: Mapping[str, Order] = field(default_factory=lambda: NO_ORDERS)
    metrics: Callable[[], Awaitable[bytes]] | None = None
    """Returns them in Prometheus' text format."""


class ControlSocket:
    """Use as an async context manager."""

    def __init__(self, path: Path, verbs: Verbs) -> None:
        self._path = path
        self._verbs = verbs

    async def __aenter__(self) -> ControlSocket:
        """Raises ConfigError where the folder's name leaves no room for a socket's."""
        if len(os.fsencode(self._path)) > MAX_PATH_BYTES:
            message = f"{self._path} is too long: the name of a socket may have {MAX_PATH_BYTES} bytes"
            raise ConfigError([Problem("gateway.data_dir", message)])
        app = web.Application(middlewares=[_say_what_the_store_says])
        app.add_routes(
            [
                web.get("/v1/status", self._get_status),
                web.get("/metrics", self._get_metrics),
                web.post("/v1/requests/{name}/cancel", _on_request(self._verbs.cancel)),
                web.post("/v1/requests/{name}/retry", _on_request(self._verbs.retry)),
                web.post("/v1/tiers/{name}/pause", _on_tier(self._verbs.pause)),
                web.post("/v1/tiers/{name}/resume", _on_tier(self._verbs.resume)),
                web.post("/v1/orders/{name}", self._post_order),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        self._path.unlink(missing_ok=True)  # of an earlier life: the database's lock says that nobody listens there
        old_mask = os.umask(0o077)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(old_mask)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _get_status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._verbs.status())

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        if self._verbs.metrics is None:
            raise web.HTTPNotFound
        return web.Response(body=await self._verbs.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def _post_order(self, request: web.Request) -> web.Response:
        order = self._verbs.orders.get(request.match_info["name"])
        if order is None:
            return web.json_response({"error": "there is no such order"}, status=404)
        return web.json_response(await order(request.query, _actor(request)))


@web.middleware
async def _say_what_the_store_says(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except StoreError as error:
        return web.json_response({"error": str(error)}, status=503)


def _on_request(verb: OnRequest) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        state = await verb(request.match_info["name"], _actor(request))
        if state is None:
            return web.json_response({"error": "there is no such request"}, status=404)
        return web.json_response({"found": state})

    return handle


def _on_tier(verb: OnTier) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if not await verb(request.match_info["name"], _actor(request)):
            return web.json_response({"error": "there is no such tier"}, status=404)
        return web.json_response({})

    return handle


def _actor(request: web.Request) -> str:
    """Returns the user at the other end of the socket, as the kernel knows them."""
    assert request.transport is not None
    peer = request.transport.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
