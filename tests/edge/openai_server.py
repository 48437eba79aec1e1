"""An OpenAI-compatible server that answers as it is told, and a client at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from mqrouter.core.events import Delta, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OpenAiWire, UpstreamClient, UpstreamOptions

OPTIONS = UpstreamOptions(
    name="hub",
    url="http://127.0.0.1:1/v1",
    model="asked-model",
    api_key=SecretStr("sk-secret"),
    max_tokens=64,
    temperature=0.2,
    concurrency=2,
    connect_timeout_s=2.0,
    first_token_timeout_s=2.0,
    idle_timeout_s=2.0,
)
CALL = TierCall("r1", (Message("system", "Be brief."), Message("user", "wet?")), 30.0)


def openai(url: str = OPTIONS.url, **options: Any) -> UpstreamClient:
    chosen = replace(OPTIONS, url=url, **options)
    return UpstreamClient(chosen, OpenAiWire(chosen))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(text: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    value = {"model": "real-model", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | more
    return b"data: " + json.dumps(value).encode() + b"\n\n"


USAGE = chunk(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
WHOLE = {
    "model": "real-model",
    "choices": [{"message": {"role": "assistant", "content": "Very wet."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2},
}


class Server:
    """Answers chat completions as `handler` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.handler: Handler = self.streamed(chunk("Yes"), chunk(finish="stop"), DONE)
        self.models_status = 200
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.url = ""

    @staticmethod
    def streamed(
        *chunks: bytes, pause: asyncio.Event | None = None, content_type: str = "text/event-stream"
    ) -> Handler:
        """With `pause` the server falls silent before the last chunk."""

        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": content_type})
            await response.prepare(request)
            for number, data in enumerate(chunks):
                if pause is not None and number == len(chunks) - 1:
                    await pause.wait()
                await response.write(data)
            return response

        return handle

    @staticmethod
    def status(status: int, body: Any = None, **headers: str) -> Handler:
        async def handle(_: web.Request) -> web.StreamResponse:
            return web.json_response(
                {"error": {"message": "said so"}} if body is None else body, status=status, headers=headers
            )

        return handle

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.json()))
        return await self.handler(request)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": []}, status=self.models_status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self.chat), web.get("/v1/models", self.models)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            await runner.cleanup()


async def ask(url: str, **options: Any) -> list[TierEvent]:
    async with openai(url, **options) as tier:
        return [event async for event in tier.stream(CALL)]


def text_of(events: list[TierEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that is free to break HTTP."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(length)
