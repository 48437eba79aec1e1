"""pages: a million requests waiting, and how soon an operator has a page of them: from the API, and in a browser."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from pathlib import Path
from urllib.parse import urlencode

from chromium import Chromium

from benchmarks.parts import broker, free_port, gateway, gateway_config, workplace
from benchmarks.queue import LISTINGS, fill
from benchmarks.report import Figure, percentile
from mqrouter.cli.daemon import call_daemon
from mqrouter.edge.web.recent import MAX_FRESH_S

SIZE = 1_000_000
LOOKS = 20
VISITS = 10
MAX_MS, MAX_INTERACTIVE_MS, MAX_BYTES = 100.0, 1_000.0, 60_000
FIRST_PAGE = 50
SORTS = ("newest", "oldest")
VISITED = {
    "the queue page": "/queue",
    "the queue page of one device": "/queue?device=device-7",
    "the queue page, an error nobody had": "/queue?error=HTTP+599",
    "the overview": "/",
}


def measure(*, share: float) -> list[Figure]:
    size, looks = int(SIZE * share), max(3, int(LOOKS * share))
    with workplace() as folder, broker(folder) as port:
        web_port = free_port()
        config = gateway_config(folder, port, threads=1)
        config.write_text(f"{config.read_text()}[http]\nport = {web_port}\n")
        asyncio.run(fill(folder / "data" / "mqrouter.db", size))
        with gateway(config, module="benchmarks.daemon"):
            call_daemon(folder / "data" / "control.sock", "POST", "/v1/pause")  # they stay as many as they are
            return [
                *_api_figures(folder / "data" / "control.sock", f"{size:,} requests waiting", looks),
                *_page_figures(folder, web_port, f"{size:,} requests waiting", max(3, int(VISITS * share))),
            ]


def _api_figures(control: Path, rows: str, looks: int) -> list[Figure]:
    """Over the local socket, where whoever asks is an operator: a filter by text is for those."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    connection.sock.connect(str(control))
    first = _times_ms(connection, "/v1/requests?", looks)
    slowest = {
        f"{name}, {sort}": percentile(_times_ms(connection, f"/v1/requests?{_query(filters, sort)}", looks), 0.9)
        for name, filters in LISTINGS.items()
        for sort in SORTS
    }
    name = max(slowest, key=slowest.__getitem__)
    stats = _times_ms(connection, "/v1/stats?", min(5, looks), is_limited=False)
    limit = (MAX_MS, "limit", "<= 1.0")
    return [
        Figure("pages", f"{rows}: first page from the API, p50", percentile(first, 0.5), "ms", *limit),
        Figure("pages", f"{rows}: the slowest of {len(slowest)} filters ({name}), p90", slowest[name], "ms", *limit),
        Figure("pages", f"{rows}: stats, p50", percentile(stats, 0.5), "ms"),
    ]


def _query(filters: dict[str, object], sort: str) -> str:
    named = {("state" if name == "states" else name): value for name, value in filters.items()}
    return urlencode({**named, "sort": sort}, doseq=True)


def _times_ms(connection: http.client.HTTPConnection, path: str, looks: int, *, is_limited: bool = True) -> list[float]:
    """No look gets what the one before was shown: each wants one more request, or waits."""
    times_ms = []
    for number in range(looks):
        if is_limited:
            path = f"{path.partition('&limit=')[0]}&limit={FIRST_PAGE + number}"
        else:
            time.sleep(MAX_FRESH_S)
        begun_s = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        times_ms.append(1000 * (time.perf_counter() - begun_s))
        if response.status != 200:
            raise SystemExit(f"bench: {path}: {response.status} {body[:200]!r}")
    return times_ms


def _page_figures(folder: Path, port: int, rows: str, visits: int) -> list[Figure]:
    """Each visit is a first one: nothing is in the browser's cache. Its script has run when the page is loaded."""
    figures: list[Figure] = []
    browser = Chromium(folder / "browser")
    try:
        with browser.tab(f"http://127.0.0.1:{port}") as tab:
            tab.call("Network.setCacheDisabled", cacheDisabled=True)
            for name, path in VISITED.items():
                times_ms = []
                for _ in range(visits):
                    tab.seen.weights.clear()
                    tab.open(path)
                    times_ms.append(tab.wait_for("performance.getEntriesByType('navigation')[0].loadEventEnd"))
                limit = (MAX_INTERACTIVE_MS, "limit", "<= 1.0")
                figures += [
                    Figure("pages", f"{rows}: {name} is interactive, p50", percentile(times_ms, 0.5), "ms", *limit),
                    Figure("pages", f"{rows}: {name}, weight", tab.seen.weight, "bytes", MAX_BYTES, "limit", "<= 1.0"),
                ]
    finally:
        browser.close()
    return figures
