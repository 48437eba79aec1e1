"""accept: durable acknowledgements a second against the round trips of a bare paho echo on the same broker."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.load import echo_all, publish_all, wait_for_retained
from benchmarks.parts import broker, gateway, gateway_config, process, status_of, workplace
from benchmarks.report import Figure

WINDOW = 100
PAYLOAD = b"How much water does the lower field need today? " + b"." * 464  # 512 bytes
MESSAGES = 20_000
WHOLE_MESSAGES = 3_000


def measure(*, share: float) -> list[Figure]:
    count = int(MESSAGES * share)
    with workplace() as folder, broker(folder) as port:
        echo = _echo(port, count // 2)
        stage = _stage(folder, port, count)
    with workplace() as folder, broker(folder) as port:
        whole = _whole(folder, port, int(WHOLE_MESSAGES * share))
    name = "bare paho QoS 1 echo"
    return [
        Figure("accept", "durable acknowledgements, accept stage alone", stage, "/s", echo, name, ">= 1.0"),
        Figure("accept", "durable acknowledgements, whole daemon, deciding meanwhile", whole, "/s", echo, name),
    ]


def _echo(port: int, count: int) -> float:
    with process([sys.executable, "-m", "benchmarks.echo", str(port)]):
        wait_for_retained(port, "bench/echo-ready")
        return echo_all(port, "bench/echo", "bench/reply", PAYLOAD, count, window=WINDOW)


def _stage(folder: Path, port: int, count: int) -> float:
    config = gateway_config(folder, port, threads=1)
    command = [sys.executable, "-m", "benchmarks.accept_stage", str(config), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stage:
        assert stage.stdout is not None
        stage.stdout.readline()
        publish_all(port, "mqrouter/farm/ask/bench", PAYLOAD, count, window=WINDOW)
        return float(stage.stdout.readline())


def _whole(folder: Path, port: int, count: int) -> float:
    """The daemon as it runs: the time until all are durable, while it decides and answers those already in."""
    config = gateway_config(folder, port, threads=1)
    with gateway(config):
        socket_path = folder / "data" / "control.sock"
        begun = time.perf_counter()
        publish_all(port, "mqrouter/farm/ask/bench", PAYLOAD, count, window=WINDOW)
        while status_of(socket_path)["accepted"].get("new", 0) < count:
            time.sleep(0.02)
        return count / (time.perf_counter() - begun)
