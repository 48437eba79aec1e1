"""queue: what the store's operations cost with 10^3 to 10^6 requests waiting, so that growth shows."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from benchmarks.parts import resident_mb, workplace
from benchmarks.report import Figure, percentile
from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.decode import Limits, decode
from mqrouter.core.request import Answer, Incoming, Kept, Request, RequestId
from mqrouter.core.states import State
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.topics import build_topic_map
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.reading import gateway_now, open_read_only, page_of, show_request
from mqrouter.edge.store.store import Policy, Store
from mqrouter.edge.system import SystemClock, machine_clocks
from mqrouter.edge.web import api
from mqrouter.edge.web.options import WebOptions
from mqrouter.edge.web.server import WebServer
from mqrouter.flow.desk import Desk
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CLAIMS = 1_000
ROUTES, DEVICES, PRIORITIES = 10, 200, 3
NOW_MS = int(1000 * time.time())
TOPICS = build_topic_map("mqrouter/farm", (), ("#",))
LIMITS = Limits(65_536, 32, 86_400.0, 604_800.0)
POLICY = Policy(QueueLimits(10_000_000, 1 << 40, WhenFull.REJECT, 1.0), 0, 3_600_000)
LISTINGS: dict[str, dict[str, Any]] = {
    "everything": {},
    "waiting": {"states": ("received", "pending", "leased")},
    "pending": {"states": ("pending",)},
    "one device": {"device": "device-7"},
    "one route": {"route": "route-3"},
    "a device's pending": {"device": "device-7", "states": ("pending",)},
    "a device and a route": {"device": "device-7", "route": "route-4"},
    "a state nobody is in": {"states": ("dead",)},
    "a device nobody knows": {"device": "nobody"},
    "a tier nobody has": {"tier": "moon"},
    "a priority nobody has": {"priority": 9, "states": ("pending",)},
    "an error nobody had": {"error": "HTTP 599"},
    "words nobody said": {"text": "zebra", "states": ("received", "pending", "leased")},
    "older than a day": {"older_than_s": 86_400.0},
    "all of it": {"device": "device-7", "route": "route-4", "tier": "hub", "priority": 1, "text": "sensor"},
}


def measure(*, share: float) -> list[Figure]:
    """Returns, for each number of waiting requests, times in milliseconds and memory in MB."""
    figures: list[Figure] = []
    first: dict[str, float] = {}
    for size in SIZES if share == 1.0 else SIZES[:-1]:
        if sys.stderr.isatty():
            print(f"  {size:,} rows …", file=sys.stderr)
        with workplace() as folder:
            asyncio.run(fill(folder / "mqrouter.db", size))
            times = asyncio.run(_times(folder / "mqrouter.db", max(100, int(CLAIMS * share))))
        for what, (value, unit, target) in times.items():
            reference = first.setdefault(what, value)
            figures.append(Figure("queue", f"{size:>9,} rows: {what}", value, unit, reference, "1,000 rows", target))
    return figures


async def fill(path: Path, size: int) -> None:
    """Requests as devices send them, decided: pending for one tier or two."""
    async with Database(path) as database:
        store = Store(database, POLICY)
        for start in range(0, size, 5_000):
            await store.accept([_request(number) for number in range(start, min(size, start + 5_000))], NOW_MS)
            await database.write(_decide_all)
        await store.recover(NOW_MS, ("hub", "edge"))


def _request(number: int) -> Request:
    payload = f'{{"question": "what does sensor {number} say today?", "priority": {number % PRIORITIES}}}'.encode()
    topic = f"mqrouter/farm/ask/device-{number % DEVICES}/{number}"
    incoming = Incoming(1, 0, 0, False, False, topic, payload)
    item = decode(incoming, TOPICS, LIMITS, RequestId(f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}"), NOW_MS)
    assert isinstance(item, Request)
    return item


def _decide_all(db: sqlite3.Connection) -> None:
    db.execute(
        "UPDATE requests SET state = 'pending', route = 'route-' || (seq % ?), tiers = CASE seq % 2 WHEN 0 THEN 'hub'"
        " ELSE 'hub>edge' END, todo = CASE seq % 2 WHEN 0 THEN 'hub' ELSE 'hub>edge' END WHERE state = 'received'",
        (ROUTES,),
    )


async def _times(path: Path, claims: int) -> dict[str, tuple[float, str, str]]:
    gc.collect()
    before_s = time.perf_counter()
    async with Database(path) as database:
        store = Store(database, POLICY)
        await store.recover(NOW_MS, ("hub", "edge"))
        start_s = time.perf_counter() - before_s
        memory_mb = _resident_mb()
        claim_ms = await _claim_ms(store, claims)
        accept_ms = await _each_ms(lambda number: store.accept([_request(10**9 + number)], NOW_MS), claims)
        upkeep_ms = await _each_ms(lambda _: store.next_due_ms(), 100)
        pages_ms = _first_pages_ms(path)
        served_ms = await _served_pages_ms(path, store)
        grown_mb = _resident_mb() - memory_mb
    return {
        "start (open, recover, count)": (start_s, "s", "< 3"),
        "claim, p50": (percentile(claim_ms, 0.5), "ms", ""),
        "claim, p99": (percentile(claim_ms, 0.99), "ms", "< 2"),
        "accept one, p50": (percentile(accept_ms, 0.5), "ms", ""),
        "accept one, p99": (percentile(accept_ms, 0.99), "ms", ""),
        "upkeep's look, p99": (percentile(upkeep_ms, 0.99), "ms", ""),
        f"slowest first page ({max(pages_ms, key=pages_ms.__getitem__)})": (max(pages_ms.values()), "ms", "< 50"),
        f"slowest page over HTTP ({max(served_ms, key=served_ms.__getitem__)})": (
            max(served_ms.values()),
            "ms",
            "< 100",
        ),
        "resident after start": (memory_mb, "MB", "flat"),
        "resident growth while used": (grown_mb, "MB", "flat"),
    }


async def _claim_ms(store: Store, number: int) -> list[float]:
    """Returns the time of each claim; what it claimed is answered in between."""
    times_ms: list[float] = []
    for _ in range(number):
        before_s = time.perf_counter()
        (row,) = await store.claim("hub", ["hub", "hub>edge"], 1, NOW_MS)
        times_ms.append(1000 * (time.perf_counter() - before_s))
        await store.finish(row, Answer(text="Nothing new."), State.ANSWERED, NOW_MS, lease=row.lease)
    return times_ms


async def _each_ms(step: Callable[[int], Awaitable[object]], number: int) -> list[float]:
    times_ms: list[float] = []
    for index in range(number):
        before_s = time.perf_counter()
        await step(index)
        times_ms.append(1000 * (time.perf_counter() - before_s))
    return times_ms


def _first_pages_ms(path: Path) -> dict[str, float]:
    """Returns the slowest of five looks at the first page of each listing, as the commands look: read-only."""
    times_ms: dict[str, float] = {}
    with open_read_only(path) as db:
        now = gateway_now(db, machine_clocks())
        for name, filters in LISTINGS.items():
            look = partial(page_of, db, Selection(**filters), limit=50, now=now)
            times_ms[name] = max(_once_ms(look) for _ in range(5))
        times_ms["one by a name nobody has"] = _once_ms(lambda: show_request(db, "nobody", now))
    return times_ms


async def _served_pages_ms(path: Path, store: Store) -> dict[str, float]:
    """Returns the slowest of five answers to each listing, over the daemon's socket, in both orders."""
    clock, times_ms = SystemClock(), dict[str, float]()
    board = TierBoard({}, clock, lambda: 0.5)
    async with Reader(path, machine_clocks) as reader:
        desk = Desk(store, reader, board, clock, trusted=(), max_ttl_ms=1, answered=Wakeup(), accepted=Wakeup())
        routes = api.routes(desk, status=dict, why_not_ready=list, errands={}, bring_in=_bring_in_nothing)
        options = WebOptions(path.with_name("control.sock"))
        connector = aiohttp.UnixConnector(str(options.socket))
        async with (
            WebServer(options, routes, clock.monotonic_s),
            aiohttp.ClientSession("http://mqrouter", connector=connector) as session,
        ):
            for name, filters in LISTINGS.items():
                fields = {("state" if key == "states" else key): value for key, value in filters.items()}
                for sort in Sort:
                    query = [(key, str(item)) for key, value in fields.items() for item in _each(value)]
                    url = f"/v1/requests?{urlencode([*query, ('sort', str(sort))])}"
                    times_ms[f"{name}, {sort}"] = max([await _asked_ms(session, url) for _ in range(5)])
    return times_ms


async def _bring_in_nothing(_kept: Sequence[Kept], _actor: str) -> dict[str, int]:
    return {}


def _each(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


async def _asked_ms(session: aiohttp.ClientSession, url: str) -> float:
    before_s = time.perf_counter()
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        await response.read()
    return 1000 * (time.perf_counter() - before_s)


def _once_ms(look: Callable[[], object]) -> float:
    before_s = time.perf_counter()
    look()
    return 1000 * (time.perf_counter() - before_s)


def _resident_mb() -> float:
    return resident_mb(os.getpid())
