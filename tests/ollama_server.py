"""An Ollama server without a model in it: its documented API to the byte, its answers from a script.

What it follows: docs/api.md and api/types.go of Ollama, and server/routes.go for the words of its errors. Objects are
written as Go writes them (compact, fields in the order of the types, empty ones left out), streams are chunked, one
object per line. Time does not pass by itself: `advance` is what lets a model's keep_alive run out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

DEFAULT_KEEP_ALIVE_S = 300.0
FOREVER_S = float("inf")
START = datetime(2026, 11, 21, 6, 0, 0, 123456, UTC)
NS = 1_000_000_000
DIGEST = "0a8c266910232fd3291e71e5ba1e058cc5af9d411192cf88b6d30e92b6e73163"
UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "3.2B",
    "quantization_level": "Q4_K_M",
}


class RefusedError(Exception):
    """An error of the API: a status and the server's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Behaviour:
    """How the next answers come: by default the question is echoed, word by word."""

    text: str | None = None
    thinking: str = ""
    done_reason: str | None = "stop"
    status: int = 200
    error: str = ""
    """With a status: instead of an answer; without: in the stream, after the words."""
    is_cut: bool = False
    """The connection ends after the words."""
    load: asyncio.Event | None = None
    """A model that is not in memory takes until this to load."""
    pause: asyncio.Event | None = None
    """The server falls silent before the last object."""


@dataclass
class OllamaServer:
    models: Sequence[str] = ("llama3.2:latest",)
    behaviour: Callable[[str], Behaviour] = lambda _question: Behaviour()
    port: int = 0
    """0: any that is free."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of /api/chat, as they were sent."""
    headers: list[dict[str, str]] = field(default_factory=list)
    probes: int = 0
    loads: int = 0
    abandoned_loads: int = 0
    now: datetime = START
    loaded: dict[str, tuple[datetime | None, Any]] = field(default_factory=dict)
    """Per model until when it stays, None for ever, and the size of its context."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.loaded = {name: one for name, one in self.loaded.items() if one[0] is None or one[0] > self.now}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[OllamaServer]:
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/api/version", self._version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.post("/api/chat", self._chat),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _root(self, _: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": "0.12.6"})

    async def _tags(self, _: web.Request) -> web.Response:
        self.probes += 1
        modified_at = START.isoformat()
        return _json(
            {
                "models": [
                    {
                        "name": name,
                        "model": name,
                        "modified_at": modified_at,
                        "size": 2019393189,
                        "digest": DIGEST,
                        "details": DETAILS,
                    }
                    for name in self.models
                ]
            }
        )

    async def _ps(self, _: web.Request) -> web.Response:
        running = [
            {
                "name": name,
                "model": name,
                "size": 5137025024,
                "digest": DIGEST,
                "details": DETAILS,
                "expires_at": _stamp(until or self.now + timedelta(days=100 * 365)),
                "size_vram": 5137025024,
                "context_length": context or 4096,
            }
            for name, (until, context) in self.loaded.items()
        ]
        return _json({"models": running})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except RefusedError as error:
            return _json({"error": str(error)}, status=error.status)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = _object(await request.read())
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        name = self._model(body)
        keep_alive_s = _keep_alive_s(body)
        messages = body.get("messages") or []
        if not messages and keep_alive_s == 0:
            self.loaded.pop(name, None)
            return _json(self._last(body, "unload"))
        question = messages[-1]["content"] if messages else ""
        how = self.behaviour(question)
        if how.status != 200:
            raise RefusedError(how.status, how.error)
        was_loaded = await self._load(name, body, how)
        self._keep(name, body, keep_alive_s)
        if not messages:
            return _json(self._last(body, "load"))
        words = (f"echo: {question}" if how.text is None else how.text).split(" ")
        words = [word if number == 0 else f" {word}" for number, word in enumerate(words)]
        limit = (body.get("options") or {}).get("num_predict", -1)
        if 0 <= limit < len(words):
            words, how = words[:limit], Behaviour(done_reason="length")
        final = self._last(body, how.done_reason) | {
            "total_duration": 4 * NS,
            "load_duration": (0 if was_loaded else 3 * NS) + 1334875,
            "prompt_eval_count": sum(len(message["content"].split()) for message in messages),
            "prompt_eval_duration": 342546000,
            "eval_count": len(words),
            "eval_duration": len(words) * 10_000_000,
        }
        if body.get("stream") is False:
            final["message"]["content"] = "".join(words)
            return _json(final)
        return await self._stream(request, body, words, final, how)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], words: list[str], final: dict[str, Any], how: Behaviour
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for thought in how.thinking.split():
            message = {"role": "assistant", "content": "", "thinking": f"{thought} "}
            await response.write(_line(self._piece(body, message)))
        for word in words:
            await response.write(_line(self._piece(body, {"role": "assistant", "content": word})))
        if how.is_cut:
            assert request.transport is not None
            request.transport.close()
            return response
        if how.pause is not None:
            await how.pause.wait()
        await response.write(_line({"error": how.error} if how.error else final))
        return response

    def _model(self, body: dict[str, Any]) -> str:
        asked = body.get("model")
        if not isinstance(asked, str) or not asked:
            raise RefusedError(400, "model is required")
        name = asked if ":" in asked else f"{asked}:latest"
        if name not in self.models:
            raise RefusedError(404, f"model '{asked}' not found")
        return name

    async def _load(self, name: str, body: dict[str, Any], how: Behaviour) -> bool:
        """Returns whether the model was in memory already, with the same context."""
        if name in self.loaded and self.loaded[name][1] == _context(body):
            return True
        if how.load is not None:
            try:
                await how.load.wait()
            except asyncio.CancelledError:  # whoever asked has gone: the load is given up
                self.abandoned_loads += 1
                raise
        self.loads += 1
        return False

    def _keep(self, name: str, body: dict[str, Any], keep_alive_s: float) -> None:
        until = None if keep_alive_s == FOREVER_S else self.now + timedelta(seconds=keep_alive_s)
        self.loaded[name] = (until, _context(body))

    def _piece(self, body: dict[str, Any], message: dict[str, str], *, is_done: bool = False) -> dict[str, Any]:
        return {"model": body["model"], "created_at": _stamp(self.now), "message": message, "done": is_done}

    def _last(self, body: dict[str, Any], reason: str | None) -> dict[str, Any]:
        piece = self._piece(body, {"role": "assistant", "content": ""}, is_done=True)
        return piece if reason is None else piece | {"done_reason": reason}


def _object(content: bytes) -> dict[str, Any]:
    if not content:
        raise RefusedError(400, "missing request body")
    try:
        body: dict[str, Any] = json.loads(content)
    except ValueError:
        raise RefusedError(400, f"invalid character {content.decode()[:1]!r} looking for beginning of value") from None
    return body


def _keep_alive_s(body: dict[str, Any]) -> float:
    """A number counts seconds; a text needs a unit, except for 0; less than nothing is for ever."""
    match body.get("keep_alive"):
        case None:
            return DEFAULT_KEEP_ALIVE_S
        case int() | float() as seconds:
            return FOREVER_S if seconds < 0 else float(seconds)
        case "0":
            return 0.0
        case str(text):
            found = re.fullmatch(r"(-?)(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
            if found is None:
                raise RefusedError(400, f'time: missing unit in duration "{text}"')
            return FOREVER_S if found[1] else float(found[2]) * UNITS_S[found[3]]
        case other:
            raise RefusedError(400, f"Unsupported type: '{type(other).__name__}'")


def _context(body: dict[str, Any]) -> Any:
    return (body.get("options") or {}).get("num_ctx")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _line(value: object) -> bytes:
    return _compact(value) + b"\n"


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=_compact(value), status=status, headers={"Content-Type": "application/json; charset=utf-8"}
    )
