"""The daemon's own door: HTTP on a unix socket in data_dir, for the commands on this machine."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from mqrouter.errors import ConfigError, Problem

MAX_PATH_BYTES = 107  # sun_path in unix(7), less its terminating NUL
Status = Callable[[], dict[str, Any]]
Cancel = Callable[[str], Awaitable[str | None]]


class ControlSocket:
    """Use as an async context manager. `cancel(id)` returns the state a request was found in, None for no such one."""

    def __init__(self, path: Path, *, status: Status, cancel: Cancel) -> None:
        self._path = path
        self._status = status
        self._cancel = cancel

    async def __aenter__(self) -> ControlSocket:
        """Raises ConfigError where the folder's name leaves no room for a socket's."""
        if len(os.fsencode(self._path)) > MAX_PATH_BYTES:
            message = f"{self._path} is too long: the name of a socket may have {MAX_PATH_BYTES} bytes"
            raise ConfigError([Problem("gateway.data_dir", message)])
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/status", self._get_status),
                web.post("/v1/requests/{id}/cancel", self._post_cancel),
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
        return web.json_response(self._status())

    async def _post_cancel(self, request: web.Request) -> web.Response:
        state = await self._cancel(request.match_info["id"])
        if state is None:
            return web.json_response({"error": "there is no such request"}, status=404)
        return web.json_response({"found": state})
