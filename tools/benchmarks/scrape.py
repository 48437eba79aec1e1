"""scrape: what Prometheus' question costs the daemon, however much is waiting."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import time
from pathlib import Path

from benchmarks.parts import WAIT_S, broker, gateway_config, process, workplace
from benchmarks.queue import fill
from benchmarks.report import Figure, percentile
from benchmarks.startup import mqrouter
from mqrouter.settings import default_threads

SIZES = (1_000, 1_000_000)
SCRAPES = 1_000
MAX_MS = 20.0


def measure(*, share: float) -> list[Figure]:
    figures: list[Figure] = []
    reference: float | None = None
    for size in SIZES if share == 1.0 else (SIZES[0], SIZES[1] // 10):
        with workplace() as folder, broker(folder) as port:
            config = gateway_config(folder, port, threads=default_threads())
            asyncio.run(fill(folder / "data" / "mqrouter.db", size))
            times_ms, found = _scrapes_ms(config, max(20, int(SCRAPES * share)))
        p50_ms = percentile(times_ms, 0.5)
        reference = p50_ms if reference is None else reference
        what = f"{size:,} requests waiting: one scrape"
        figures += [
            Figure("scrape", f"{what}, p50", p50_ms, "ms", reference, f"{SIZES[0]:,} requests", "<= 2"),
            Figure("scrape", f"{what}, p99", percentile(times_ms, 0.99), "ms", MAX_MS, "limit", "<= 1.0"),
            Figure("scrape", f"{what}, slowest: the first after the start", max(times_ms), "ms"),
            Figure("scrape", f"{what}, size", found / 1000, "kB"),
        ]
    return figures


def _scrapes_ms(config: Path, number: int) -> tuple[list[float], int]:
    """Returns the time of each scrape of a daemon that is ready, through its control socket, and the size in bytes."""
    address = config.parent / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(4 * WAIT_S)
        with process([mqrouter(), "run", "-c", str(config)], NOTIFY_SOCKET=str(address)) as daemon:
            while b"READY=1" not in manager.recv(4096).splitlines():
                pass
            times_ms, found = [], 0
            for _ in range(number):
                begun = time.perf_counter()
                found = _scrape(config.parent / "data" / "control.sock")
                times_ms.append(1000 * (time.perf_counter() - begun))
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(WAIT_S)
    return times_ms, found


def _scrape(address: Path) -> int:
    """Returns the bytes of one scrape, on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(address))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        body = response.read()
    if b"mqrouter_queue_requests" not in body:
        raise SystemExit(f"bench: no metrics at {address}: {response.status}")
    return len(body)
