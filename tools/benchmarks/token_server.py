"""A model server that writes tokens at a fixed pace, or as fast as it can. Run: token_server.py PORT.

A question like "200 tokens, 2.5 ms" says how many, and how long it thinks before each.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web


def event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "tokens",
        "choices": [choice],
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


TOKEN = event({"content": " word"})
END = event({}, "stop") + b"data: [DONE]\n\n"


async def answer(request: web.Request) -> web.StreamResponse:
    question = (await request.json())["messages"][-1]["content"].split()
    count, pause_s = int(question[0]), float(question[2]) / 1000
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    next_s = asyncio.get_running_loop().time()
    for _ in range(count):
        if pause_s:
            next_s += pause_s
            await asyncio.sleep(max(0.0, next_s - asyncio.get_running_loop().time()))
        await response.write(TOKEN)
    await response.write(END)
    return response


async def models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer), web.get("/v1/models", models)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
