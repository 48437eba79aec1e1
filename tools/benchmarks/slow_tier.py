"""A tier that takes a fixed time for each answer. Run: slow_tier.py PORT SECONDS FILE.

At SIGTERM it writes to FILE, as JSON, each call's arrival in seconds, its text and how many were under way with it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from aiohttp import web


class SlowTier:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at_once = 0
        self.calls: list[dict[str, object]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._at_once += 1
        call = {"at_s": time.monotonic(), "text": body["messages"][-1]["content"], "at_once": self._at_once}
        self.calls.append(call)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._at_once -= 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in (({"content": "Nothing new."}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            await response.write(b"data: " + json.dumps({"model": "slow", "choices": [choice]}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        call["end_s"] = time.monotonic()
        return response


async def main(port: int, seconds: float, file: Path) -> None:
    tier = SlowTier(seconds)
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", tier.answer), web.get("/v1/models", _models)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    file.write_text(json.dumps(tier.calls), encoding="utf-8")  # noqa: ASYNC240  nothing else runs any more


async def _models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])))
