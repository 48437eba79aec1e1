"""startup: from the start of the process to READY, and the commands an operator types most."""

from __future__ import annotations

import asyncio
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.parts import WAIT_S, broker, gateway_config, process, workplace
from benchmarks.queue import fill
from benchmarks.report import Figure
from mqrouter.settings import default_threads

RUNS = 7
BACKLOG = 100_000


def measure(*, share: float) -> list[Figure]:
    runs = max(2, int(RUNS * share))
    with workplace() as folder, broker(folder) as port:
        config = gateway_config(folder, port, threads=default_threads())
        first_s = _to_ready_s(config)  # embeds the routes' examples, and keeps them
        ready_s = statistics.median(_to_ready_s(config) for _ in range(runs))
        asyncio.run(fill(folder / "data" / "mqrouter.db", BACKLOG))
        _to_ready_s(config, end=signal.SIGKILL)
        again_s = statistics.median(_to_ready_s(config, end=signal.SIGKILL) for _ in range(runs))
        help_s = statistics.median(_command_s("--help") for _ in range(runs))
        list_s = statistics.median(_command_s("queue", "list", "-c", str(config)) for _ in range(runs))
    return [
        Figure("startup", f"ready, models on disk (median of {runs})", ready_s, "s", 1.5, "limit", "<= 1.0"),
        Figure("startup", "ready, first start with new routes", first_s, "s"),
        Figure("startup", f"ready after kill -9, {BACKLOG:,} requests waiting", again_s, "s", 2.0, "limit", "<= 1.0"),
        Figure("startup", "mqrouter --help", help_s, "s", 0.3, "limit", "<= 1.0"),
        Figure("startup", "mqrouter queue list", list_s, "s", 0.3, "limit", "<= 1.0"),
    ]


def _to_ready_s(config: Path, *, end: signal.Signals = signal.SIGTERM) -> float:
    """The time until the daemon tells its service manager READY=1: models loaded, broker subscribed."""
    address = config.parent / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(WAIT_S)
        begun = time.perf_counter()
        with process([mqrouter(), "run", "-c", str(config)], NOTIFY_SOCKET=str(address)) as daemon:
            while b"READY=1" not in manager.recv(4096).splitlines():
                pass
            elapsed = time.perf_counter() - begun
            daemon.send_signal(end)
            daemon.wait(WAIT_S)
    address.unlink()
    return elapsed


def _command_s(*arguments: str) -> float:
    begun = time.perf_counter()
    subprocess.run([mqrouter(), *arguments], capture_output=True, check=False)
    return time.perf_counter() - begun


def mqrouter() -> str:
    return str(Path(sys.executable).with_name("mqrouter"))
