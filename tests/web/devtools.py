"""The protocol by which a browser is driven, over its WebSocket: https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import aiohttp

WAIT_S = 30.0


class Protocol:
    """The WebSocket, served by a loop in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.listeners: dict[str, Callable[[str, dict[str, Any]], object]] = {}
        """By session: take each event's name and parameters, in the loop's thread."""
        self._unwatched: set[asyncio.Task[dict[str, Any]]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._connect(url))

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._run(self._call(method, session, parameters))
        return found

    def send(self, method: str, session: str, **parameters: Any) -> None:
        """The same from a listener, which cannot wait: the answer is looked at by nobody."""
        self._unwatched.add(task := self._loop.create_task(self._call(method, session, parameters)))
        task.add_done_callback(self._unwatched.discard)

    def close(self) -> None:
        self._run(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _connect(self, url: str) -> None:
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(url, max_msg_size=0)
        self._receiving = asyncio.create_task(self._receive())

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._http.close()
        await self._receiving

    async def _call(self, method: str, session: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message if session is None else message | {"sessionId": session})
        found = await answer
        if "error" in found:
            raise ProtocolError(f"{method}: {found['error']['message']}")
        result: dict[str, Any] = found["result"]
        return result

    async def _receive(self) -> None:
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._waiting.pop(found["id"]).set_result(found)
            elif (listener := self.listeners.get(found.get("sessionId", ""))) is not None:
                listener(found["method"], found["params"])


class ProtocolError(Exception):
    """The browser would not do it."""
