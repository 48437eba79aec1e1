"""Runs in the peer's interpreter: reads routes and questions from standard input, prints its figures as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONCURRENT = 64


async def main(task: dict[str, Any]) -> dict[str, float | str]:
    import litellm

    api = {"api_base": f"http://127.0.0.1:{task['port']}/v1", "api_key": "none"}
    routes = [{"name": name, "utterances": texts, "score_threshold": 0.3} for name, texts in task["routes"].items()]
    router = litellm.Router(
        model_list=[
            {
                "model_name": "auto",
                "litellm_params": {
                    "model": "auto_router/auto",
                    "auto_router_config": json.dumps({"routes": routes}),
                    "auto_router_default_model": "fallback",
                    "auto_router_embedding_model": "embedder",
                },
            },
            {"model_name": "fallback", "litellm_params": {"model": "openai/fallback"} | api},
            {"model_name": "embedder", "litellm_params": {"model": "openai/all-minilm-l6-v2"} | api},
        ]
    )

    async def decide(question: str) -> None:
        messages = [{"role": "user", "content": question}]
        await router.async_pre_routing_hook(model="auto", request_kwargs={}, messages=messages)

    await decide("warm-up")
    latencies_ms = []
    for question in task["questions"]:
        begun = time.perf_counter()
        await decide(question)
        latencies_ms.append(1000 * (time.perf_counter() - begun))
    turns = asyncio.Semaphore(CONCURRENT)

    async def in_turn(question: str) -> None:
        async with turns:
            await decide(question)

    begun = time.perf_counter()
    await asyncio.gather(*(in_turn(question) for question in task["questions"]))
    elapsed_s = time.perf_counter() - begun
    latencies_ms.sort()
    return {
        "p50_ms": latencies_ms[len(latencies_ms) // 2],
        "p99_ms": latencies_ms[int(0.99 * len(latencies_ms))],
        "per_s": len(task["questions"]) / elapsed_s,
        "version": version("litellm"),
        "resident_mb": _resident_mb(),
    }


def _resident_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
