"""Real model servers as fixtures: llama-cpp-python's, and a LiteLLM proxy in front of it where one is installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mqrouter.settings import Settings

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
LITELLM = "MQROUTER_LITELLM"
"""Names the program `litellm` of an environment of its own."""
KEY = "sk-only-for-tests"
START_LIMIT_S = 120.0

PROXY = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: none}}
  - model_name: down
    litellm_params: {{model: openai/down, api_base: "http://127.0.0.1:9/v1", api_key: none, max_retries: 0}}
router_settings: {{num_retries: 0}}
general_settings: {{master_key: {key}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def llama_cpp_server() -> Iterator[str]:
    """Its address, once it answers."""
    port = free_port()
    command = [sys.executable, "tools/demo_parts/hub.py", str(port), str(Settings().gateway.models_dir.expanduser())]
    with _server(command, f"http://127.0.0.1:{port}", "/v1/models") as url:
        yield url


@contextmanager
def litellm_proxy(folder: Path, url: str) -> Iterator[str]:
    """A proxy in front of `url`, its address; the test is skipped where LiteLLM is not named."""
    program = os.environ.get(LITELLM)
    if program is None:
        pytest.skip(f"LiteLLM is not installed here: {LITELLM} names its program")
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(PROXY.format(model=MODEL, url=url, key=KEY), encoding="utf-8")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    with _server(command, f"http://127.0.0.1:{port}", "/health/liveliness", environ) as proxy:
        yield proxy


@contextmanager
def _server(command: Sequence[str], url: str, path: str, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_up(process, url + path)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    give_up_s = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < give_up_s:
        try:
            with urllib.request.urlopen(url, timeout=5.0):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)  # another process's port: it gives no event
    raise AssertionError(f"{process.args!r} did not come up, exit code {process.poll()}")
