"""Listens on the unix socket, and over TCP where that is wanted; every answer and every error has its headers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.guard import HEADERS, SAFE_METHODS, Caller, Guard
from mqrouter.edge.web.openapi import document
from mqrouter.edge.web.options import Role, TcpOptions, WebOptions
from mqrouter.edge.web.recent import Recent
from mqrouter.edge.web.routes import Call, Route
from mqrouter.edge.web.wire import wire_log
from mqrouter.errors import ConfigError, Problem, RequestError, StoreError

log = structlog.get_logger("http")

MAX_PATH_BYTES = 107  # sun_path in unix(7), less its terminating NUL
STOP_TIMEOUT_S = 1.0
"""For an answer that somebody is being sent when the daemon stops, and once more for its handler to end."""
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Site(Protocol):
    """The pages for people."""

    @property
    def guard(self) -> Guard: ...

    @property
    def routes(self) -> Sequence[Route]: ...

    async def error_page(self, request: web.Request, error: ApiError) -> web.Response:
        """Returns what a browser is shown."""
        ...

    def close(self) -> None:
        """Streams end: nobody waits for them."""
        ...


class WebServer:
    """Use as an async context manager.

    An address that is taken does not stop the gateway, whose work is the queue: `error` says so, and so does the log.
    """

    def __init__(
        self,
        options: WebOptions,
        routes: Sequence[Route],
        monotonic_s: Callable[[], float],
        site: Site | None = None,
    ) -> None:
        self._options = options
        self._site = site
        self._routes = [*routes, self._described(routes), *(() if site is None else site.routes)]
        self._guard = Guard(options.tcp, monotonic_s) if site is None else site.guard
        self._recent = Recent(monotonic_s)
        self.error: str | None = None
        self.port: int | None = None
        """Of TCP, while it listens there."""

    @property
    def routes(self) -> Sequence[Route]:
        return self._routes

    async def __aenter__(self) -> WebServer:
        """Raises ConfigError where the socket cannot be there at all."""
        check(self._options)
        async with AsyncExitStack() as stack:
            runner = web.AppRunner(
                self._app(), access_log=None, handle_signals=False, logger=wire_log(), shutdown_timeout=STOP_TIMEOUT_S
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await self._listen_here(runner)
            stack.callback(self._options.socket.unlink, missing_ok=True)
            if self._options.tcp is not None:
                await self._listen_to_others(runner, self._options.tcp)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _listen_here(self, runner: web.AppRunner) -> None:
        path = self._options.socket
        path.unlink(missing_ok=True)  # of an earlier life: the database's lock says that nobody listens there
        old_mask = os.umask(0o077)
        try:
            await web.UnixSite(runner, str(path)).start()
        finally:
            os.umask(old_mask)

    async def _listen_to_others(self, runner: web.AppRunner, tcp: TcpOptions) -> None:
        site = web.TCPSite(runner, tcp.host, tcp.port)
        try:
            await site.start()
        except OSError as error:
            self.error = f"{tcp.host}:{tcp.port}: {error.strerror or error}"
            log.error("http.not_listening", address=f"{tcp.host}:{tcp.port}", error=self.error)
            return
        self.port = next(address[1] for address in runner.addresses if isinstance(address, tuple))
        log.info("http.listening", host=tcp.host, port=self.port)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._answer_errors], client_max_size=self._options.max_body_bytes)
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._close_site)
        for route in self._routes:
            app.router.add_route(route.method, route.path, self._handler(route))
        return app

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            caller = self._guard.admit(request, route.role, is_page=route.is_page)
            if route.is_shared:
                return await self._shared(route, request, caller)
            try:
                found = await route.call(request, caller)
            finally:
                if request.method not in SAFE_METHODS:
                    self._recent.forget()
            return found if isinstance(found, web.StreamResponse) else web.json_response(found)

        return handle

    async def _shared(self, route: Route, request: web.Request, caller: Caller) -> web.Response:
        asked, begun = (request.raw_path, caller.role), self._recent.now()
        body = self._recent.get(asked)
        if body is None:
            body = json.dumps(await route.call(request, caller)).encode()
            self._recent.keep(asked, body, begun)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _close_site(self, _app: web.Application) -> None:
        if self._site is not None:
            self._site.close()

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whoever asked hears what to do, and never what is inside; browsers as a page."""
        try:
            return await handler(request)
        except Exception as error:
            found = _told(error, request)
            is_read = not request.path.startswith("/v1/") and "text/html" in request.headers.get("Accept", "")
            if self._site is None or not is_read:
                return found.response()
            return await self._site.error_page(request, found)

    def _described(self, routes: Sequence[Route]) -> Route:
        async def describe(_call: Call) -> dict[str, Any]:
            return document(self._routes)

        return Route("GET", "/v1/openapi.json", Role.NOBODY, describe, "This description.")


def check(options: WebOptions) -> None:
    """Raises ConfigError where the socket's name is too long."""
    if len(os.fsencode(options.socket)) > MAX_PATH_BYTES:
        message = f"{options.socket} is too long: the name of a socket may have {MAX_PATH_BYTES} bytes"
        raise ConfigError([Problem("gateway.data_dir", message)])


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _told(error: Exception, request: web.Request) -> ApiError:
    match error:
        case ApiError():
            return error
        case RequestError():
            return ApiError(400, error.code, error.message)
        case StoreError():
            log.error("http.store_failed", error=str(error))
            return ApiError(503, "store_failed", f"the database cannot do this now: {error}")
        case web.HTTPException():
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return ApiError(error.status, CODES.get(error.status, "error"), error.reason, headers=allow)
    log.error("http.request_failed", method=request.method, route=str(request.rel_url.path)[:200], exc_info=error)
    return ApiError(500, "internal", f"this is a fault of mqrouter ({type(error).__name__}): see its log")
