"""Recorded exchanges with real model servers, and a server that plays them back to the byte.

A file has one JSON object per line; `tools/record` writes them. Of the request only its JSON is kept, of the response
its status, its body in the pieces it came in, and the headers that mean something to a client: no key, no host.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

RECORDED = Path(__file__).parent / "recorded"
CODED = "base64:"
KEPT_HEADERS = ("Content-Type", "Retry-After")


@dataclass(frozen=True)
class Exchange:
    method: str
    path: str
    request: Any
    """JSON; None where there was no body."""
    status: int
    headers: dict[str, str]
    chunks: list[str]
    """UTF-8 where a piece is that, else base64 behind "base64:"."""
    is_cut: bool = False
    """The connection ended before the body did."""

    def as_line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @property
    def body(self) -> bytes:
        return b"".join(map(as_bytes, self.chunks))


def read(name: str) -> list[Exchange]:
    """Returns the exchanges of tests/recorded/NAME.jsonl."""
    return read_file(RECORDED / f"{name}.jsonl")


def read_file(path: Path) -> list[Exchange]:
    return [Exchange(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def as_text(chunk: bytes) -> str:
    try:
        text = chunk.decode()
    except UnicodeDecodeError:
        return CODED + base64.b64encode(chunk).decode()
    return CODED + base64.b64encode(chunk).decode() if text.startswith(CODED) else text


def as_bytes(chunk: str) -> bytes:
    return base64.b64decode(chunk.removeprefix(CODED)) if chunk.startswith(CODED) else chunk.encode()


class Replay:
    """Answers a request as it was answered when it was recorded; one that never was gets a 418."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replay]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = (request.method, request.path, await request.json() if request.can_read_body else None)
        found = next((one for one in self._exchanges if (one.method, one.path, one.request) == asked), None)
        if found is None:
            return web.json_response({"error": "this was never recorded"}, status=418)
        response = web.StreamResponse(status=found.status, headers=found.headers)
        await response.prepare(request)
        for chunk in found.chunks:
            await response.write(as_bytes(chunk))
        if found.is_cut and request.transport is not None:
            request.transport.close()
        return response
