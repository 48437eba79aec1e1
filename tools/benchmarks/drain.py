"""drain: a backlog after an outage, against what a bare client gets out of the same tier at the same concurrency."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.parts import broker, free_port, gateway, process, status_of, wait_for_port, workplace
from benchmarks.report import Figure
from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.decode import Limits, decode
from mqrouter.core.request import Incoming, Request, RequestId
from mqrouter.core.topics import build_topic_map
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.edge.system import SystemClock

ROWS = 10_000
BARE_CALLS = 1_000
CONCURRENCY = 8
ANSWER_S = 0.1
PRIORITIES = 10
GIVE_UP_S = 600.0

GATEWAY = """
include = []
[gateway]
data_dir = "{data}"
[mqtt]
port = {port}
[log]
level = "error"
[retry]
probe_max_s = 1.0
[routing.abstain]
to = ["hub"]
when_offline = "queue"
prompt = "brief"
[prompts]
brief = "Be brief."
[routes.farm]
examples = ["what does the sensor say?"]
to = ["hub"]
[tiers.hub]
kind = "openai"
url = "http://127.0.0.1:{tier}/v1"
model = "slow"
concurrency = {concurrency}
"""


def measure(*, share: float) -> list[Figure]:
    rows = int(ROWS * share)
    with workplace() as folder, broker(folder) as port:
        tier_port = free_port()
        config = folder / "mqrouter.toml"
        values = {"data": folder / "data", "port": port}
        config.write_text(GATEWAY.format(**values, tier=tier_port, concurrency=CONCURRENCY), encoding="utf-8")
        asyncio.run(_fill(folder / "data" / "mqrouter.db", rows))
        bare_per_s = _bare_per_s(tier_port, folder / "bare.json", int(BARE_CALLS * share))
        with gateway(config, module="benchmarks.daemon"), _tier(tier_port, folder / "calls.json"):
            _wait_until_drained(folder / "data" / "control.sock")
        calls = json.loads((folder / "calls.json").read_text(encoding="utf-8"))
    return _figures(calls, rows, bare_per_s)


def _figures(calls: list[dict[str, Any]], rows: int, bare_per_s: float) -> list[Figure]:
    elapsed_s = max(call["end_s"] for call in calls) - calls[0]["at_s"]
    priorities = [int(call["text"].split()[-1]) for call in calls]
    # Calls under way together may arrive in any order: one is misplaced that comes a whole window too late.
    misplaced = sum(late > early for early, late in zip(priorities, priorities[CONCURRENCY:], strict=False))
    name = f"bare client, {CONCURRENCY} at once, {ANSWER_S:g} s each"
    return [
        Figure("drain", f"{rows:,} requests after an outage", len(calls) / elapsed_s, "/s", bare_per_s, name, ">= 0.9"),
        Figure("drain", "calls per request", len(calls), "", rows, "requests", "= 1"),
        Figure("drain", "most at once", max(call["at_once"] for call in calls), "", CONCURRENCY, "limit", "<= 1.0"),
        Figure("drain", "at once in the first half answer time", _at_once_at_first(calls), ""),
        Figure("drain", "served after one of lower priority", misplaced, "", None, "", "0"),
    ]


def _at_once_at_first(calls: list[dict[str, Any]]) -> int:
    first_s = calls[0]["at_s"]
    return sum(call["at_s"] < first_s + ANSWER_S / 2 for call in calls)


async def _fill(path: Path, rows: int) -> None:
    """Requests that were decided while the tier was down, of all priorities mixed."""
    policy = Policy(QueueLimits(10_000_000, 1 << 40, WhenFull.REJECT, 1.0), 0, 0)
    now_ms = SystemClock().now_ms()
    async with Database(path) as database:
        store = Store(database, policy)
        for start in range(0, rows, 1_000):
            await store.accept([_request(number, now_ms) for number in range(start, min(rows, start + 1_000))], now_ms)
            for row in await store.next_received(1_000, ()):
                await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.0, decision={}, now_ms=now_ms)


def _request(number: int, now_ms: int) -> Request:
    priority = number * 7 % PRIORITIES
    payload = json.dumps({"question": f"What does sensor {number} say at priority {priority}", "priority": priority})
    topic = f"mqrouter/farm/ask/device-{number % 20}/{number}"
    incoming = Incoming(1, 0, 0, False, False, topic, payload.encode())
    limits = Limits(65_536, 32, 86_400.0, 604_800.0)
    item = decode(incoming, build_topic_map("mqrouter/farm", (), ("#",)), limits, RequestId(f"{number:016x}"), now_ms)
    assert isinstance(item, Request)
    return item


def _tier(port: int, file: Path) -> Any:
    return process([sys.executable, "-m", "benchmarks.slow_tier", str(port), str(ANSWER_S), str(file)])


def _bare_per_s(port: int, file: Path, number: int) -> float:
    with _tier(port, file):
        wait_for_port(port, "the tier")
        return asyncio.run(_call_all(port, number))


async def _call_all(port: int, number: int) -> float:
    left = iter(range(number))
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "at priority 0"}]}

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post("/v1/chat/completions", json=body) as response:
                await response.read()

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, asyncio.TaskGroup() as workers:
        begun_s = time.perf_counter()
        for _ in range(CONCURRENCY):
            workers.create_task(worker(session))
    return number / (time.perf_counter() - begun_s)


def _wait_until_drained(control_socket: Path) -> None:
    give_up_s = time.monotonic() + GIVE_UP_S
    while sum(status_of(control_socket).get("requests", {"?": 1}).values()):
        if time.monotonic() > give_up_s:
            raise SystemExit("bench: the backlog did not drain")
        if sys.stderr.isatty():
            print(".", end="", file=sys.stderr, flush=True)
        time.sleep(1.0)
