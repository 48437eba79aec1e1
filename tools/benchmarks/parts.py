"""What the benchmarks run against: a broker, a gateway's configuration, its processes, and questions."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mqrouter.cli.daemon import DaemonDownError, call_daemon

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
PAUSE_S = 0.01

GATEWAY = """
include = ["{config}/routes/*.toml", "{config}/prompts.toml"]
[gateway]
data_dir = "{data}"
[mqtt]
port = {port}
protocol = "5"
receive_maximum = 100
[limits]
device_rate_per_minute = 100000000
[queue]
max_requests = 1000000
max_bytes = 10000000000
max_share_per_device = 1.0
[embedder]
threads = {threads}
[log]
level = "warning"
[tiers.edge]
kind = "local"
[tiers.hub]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "stub"
concurrency = 64
[tiers.regional]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "stub"
concurrency = 64
[tiers.datacenter]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "stub"
concurrency = 64
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mqrouter-bench-") as folder:
        yield Path(folder)


@contextmanager
def process(command: Sequence[str], *, is_quiet: bool = False, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with the block."""
    output = subprocess.DEVNULL if is_quiet else None
    env = os.environ | {"PYTHONPATH": str(ROOT / "tools")} | environ
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto on a free loopback port, with windows wide enough not to be what is measured."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n"
        "max_inflight_messages 100\nmax_queued_messages 0\nset_tcp_nodelay true\n"
    )
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None, "tools/bench has looked for it"
    with process([program, "-c", str(config)]):
        wait_for_port(port, "the broker")
        yield port


def wait_for_port(port: int, what: str) -> None:
    _wait_for(lambda: _is_listening(port), what)


def gateway_config(folder: Path, port: int, *, threads: int) -> Path:
    path = folder / "mqrouter.toml"
    path.write_text(GATEWAY.format(config=ROOT / "config", data=folder / "data", port=port, threads=threads))
    return path


@contextmanager
def gateway(config: Path, *, module: str = "benchmarks.stub_gateway") -> Iterator[subprocess.Popen[bytes]]:
    """The daemon in a process of its own, ready."""
    with process([sys.executable, "-m", module, str(config)]) as child:
        socket_path = config.parent / "data" / "control.sock"
        _wait_for(lambda: child.poll() is not None or bool(status_of(socket_path).get("ready")), "the daemon")
        if child.poll() is not None:
            raise SystemExit(f"bench: the daemon ended with {child.returncode}")
        yield child


def status_of(socket_path: Path) -> dict[str, Any]:
    with contextlib.suppress(DaemonDownError, OSError, http.client.HTTPException):
        return call_daemon(socket_path, "GET", "/v1/status")[1]
    return {}


def resident_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def questions() -> list[str]:
    """The labelled farm questions, each once."""
    lines = (ROOT / "tests/data/farm_questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def distinct_questions(count: int) -> Iterator[str]:
    """As many questions as wanted, no two alike, so that no cache anywhere can help."""
    known = questions()
    for number in range(count):
        round_, index = divmod(number, len(known))
        yield known[index] if round_ == 0 else f"{known[index]} ({round_})"


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def _wait_for(is_true: Any, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} did not come up within {WAIT_S:.0f} s")
        time.sleep(PAUSE_S)
