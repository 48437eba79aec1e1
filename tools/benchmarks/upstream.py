"""upstream: the daemon's client against bare aiohttp at the same server, and what a tier that is down costs a question.

Bare means: post, split lines, parse each event and take its text. Both ask in turn, so that the machine's mood meets
both alike. The tier that is down is measured through the whole daemon: questions that its route names first, against
questions whose route names only the tier that is up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.load import ask_all
from benchmarks.parts import broker, free_port, gateway, process, wait_for_port, workplace
from benchmarks.report import Figure, percentile
from mqrouter import wiring
from mqrouter.core.events import Delta, TierCall
from mqrouter.core.request import Message
from mqrouter.edge.upstream import UpstreamClient
from mqrouter.settings import OpenAiTier

ROUNDS = 100
TOKENS = 200
PAUSE_MS = 2.5
"""Between two tokens: 400 tokens/s, ten times what a hub is good for."""
QUESTIONS = 600
BARE = "bare aiohttp"

GATEWAY = """
include = []
[gateway]
data_dir = "{data}"
[mqtt]
port = {port}
[limits]
device_rate_per_minute = 100000000
[log]
level = "error"
[retry]
probe_min_s = 600.0
probe_max_s = 600.0
[routing.abstain]
to = ["up"]
when_offline = "queue"
prompt = "brief"
[prompts]
brief = "Be brief."
[routes.up]
examples = ["what does the sensor say?"]
to = ["up"]
[routes.down]
examples = ["is the trough full?"]
to = ["down", "up"]
[tiers.up]
kind = "openai"
url = "http://127.0.0.1:{tier}/v1"
model = "tokens"
[tiers.down]
kind = "openai"
url = "http://127.0.0.1:{nobody}/v1"
model = "nobody"
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer: seconds to its first token, and tokens per second after it."""

    first_s: float
    per_s: float


def measure(*, share: float) -> list[Figure]:
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.token_server", str(port)]):
        wait_for_port(port, "the token server")
        paced = asyncio.run(_compared(port, f"{TOKENS} tokens, {PAUSE_MS} ms", int(ROUNDS * share)))
        unpaced = asyncio.run(_compared(port, f"{TOKENS} tokens, 0 ms", int(ROUNDS * share)))
        with workplace() as folder:
            down_ms, up_ms = _outage(folder, port, int(QUESTIONS * share))
    return [*_first_token_figures(*paced), *_rate_figures(*paced, *unpaced), *_outage_figures(down_ms, up_ms)]


def _first_token_figures(ours: list[Timing], bare: list[Timing]) -> list[Figure]:
    first_ms, bare_first_ms = (1000 * percentile([one.first_s for one in found], 0.5) for found in (ours, bare))
    return [
        Figure("upstream", "first token p50", first_ms, "ms", bare_first_ms, BARE),
        Figure("upstream", "added to the first token p50", first_ms - bare_first_ms, "ms", 3, "limit", "<= 1.0"),
    ]


def _rate_figures(
    ours: list[Timing], bare: list[Timing], unpaced: list[Timing], bare_unpaced: list[Timing]
) -> list[Figure]:
    paces = ((f"server writes {1000 / PAUSE_MS:.0f} /s", ours, bare), ("server writes at once", unpaced, bare_unpaced))
    return [
        Figure("upstream", f"tokens p50, {pace}", _rate(ours), "/s", _rate(bare), BARE, ">= 0.95")
        for pace, ours, bare in paces
    ]


def _rate(found: list[Timing]) -> float:
    return percentile([one.per_s for one in found], 0.5)


def _outage_figures(down_ms: list[float], up_ms: list[float]) -> list[Figure]:
    p50_ms, up_p50_ms = percentile(down_ms, 0.5), percentile(up_ms, 0.5)
    name = "first tier up"
    return [
        Figure("upstream", "answered in, first tier down, p50", p50_ms, "ms", up_p50_ms, name),
        Figure(
            "upstream",
            "answered in, first tier down, p99",
            percentile(down_ms, 0.99),
            "ms",
            percentile(up_ms, 0.99),
            name,
        ),
        Figure(
            "upstream", "added by a tier whose breaker is open, p50", p50_ms - up_p50_ms, "ms", 5, "limit", "<= 1.0"
        ),
    ]


async def _compared(port: int, question: str, rounds: int) -> tuple[list[Timing], list[Timing]]:
    url = f"http://127.0.0.1:{port}/v1"
    tier = OpenAiTier(kind="openai", url=url, model="tokens", max_tokens=TOKENS)
    ours: list[Timing] = []
    bare: list[Timing] = []
    async with wiring.upstream_client("up", tier) as client, aiohttp.ClientSession() as session:
        for number in range(rounds + 5):
            pair = [(ours, lambda: _ours(client, question)), (bare, lambda: _bare(session, url, question))]
            for found, ask in pair if number % 2 else reversed(pair):
                found.append(await _timed(ask))
    return ours[5:], bare[5:]  # the first ones open connections


async def _timed(ask: Callable[[], AsyncIterator[str]]) -> Timing:
    started_s = time.perf_counter()
    first_s = 0.0
    tokens = 0
    async for text in ask():
        if not tokens:
            first_s = time.perf_counter()
        tokens += text.count("word")
    if tokens != TOKENS:
        raise SystemExit(f"bench: {tokens} tokens instead of {TOKENS}")
    return Timing(first_s - started_s, tokens / (time.perf_counter() - started_s))


async def _ours(client: UpstreamClient, question: str) -> AsyncIterator[str]:
    call = TierCall("bench", (Message("user", question),), 60.0)
    async for event in client.stream(call):
        if isinstance(event, Delta):
            yield event.text


async def _bare(session: aiohttp.ClientSession, url: str, question: str) -> AsyncIterator[str]:
    body = {"model": "tokens", "messages": [{"role": "user", "content": question}], "stream": True}
    async with session.post(f"{url}/chat/completions", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])["choices"][0]["delta"].get("content", "")


def _outage(folder: Path, tier: int, questions: int) -> tuple[list[float], list[float]]:
    """Returns the milliseconds of questions whose first tier is down, and of those whose only tier is up, in turn."""
    with broker(folder) as port:
        config = folder / "mqrouter.toml"
        values = {"data": folder / "data", "port": port, "tier": tier, "nobody": free_port()}
        config.write_text(GATEWAY.format(**values), encoding="utf-8")
        with gateway(config, module="benchmarks.daemon"):
            asked = [_payload(number) for number in range(questions + 20)]
            result = ask_all(port, "mqrouter/farm/ask/bench", "bench/answers", asked, window=1)
    found_ms = [1000 * latency_s for latency_s in result.latencies_s]
    return found_ms[20::2], found_ms[21::2]  # the first one opens the breaker


def _payload(number: int) -> bytes:
    route = ("down", "up")[number % 2]
    return json.dumps({"question": f"1 tokens, 0 ms, number {number}", "route": route}).encode()
