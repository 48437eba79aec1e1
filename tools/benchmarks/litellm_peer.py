"""The peer: LiteLLM's auto-router with the same model, routes and questions, its embedder behind llama.cpp's server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.parts import ROOT, free_port, process, questions, wait_for_port
from benchmarks.report import Figure
from mqrouter.models.store import resolve
from mqrouter.settings import Settings, default_threads

CHILD = Path(__file__).with_name("litellm_child.py")
LIMIT_S = 300


def measure(peer: str, share: float, *, p50_ms: float, per_s: float) -> list[Figure]:
    """Returns our figures, given from the same run, against the peer's."""
    settings = Settings()
    model = resolve(settings.embedder.model, settings.gateway.models_dir.expanduser()).path
    port = free_port()
    server = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--embedding", "true"]
    server += ["--n_ctx", "256", "--n_batch", "256", "--n_ubatch", "256", "--n_threads", str(default_threads())]
    server += ["--n_threads_batch", str(default_threads()), "--port", str(port), "--verbose", "false"]
    asked = questions()
    asked = asked[: max(20, int(len(asked) * share))]
    with process(server, is_quiet=True):
        wait_for_port(port, "the embedding server")
        task = json.dumps({"port": port, "routes": _routes(), "questions": asked})
        child = subprocess.run(
            [peer, str(CHILD)],
            input=task,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=os.environ | {"PYTHONSAFEPATH": "1"},  # a module beside it has the name of one of Python's own
        )
    if child.returncode != 0:
        raise SystemExit(f"bench: the peer failed:\n{child.stderr[-2000:]}")
    found = json.loads(child.stdout.splitlines()[-1])
    name = f"LiteLLM {found['version']} auto-router"
    return [
        Figure("decide", "decision p50 against the peer", p50_ms, "ms", found["p50_ms"], name),
        Figure("decide", "sustained against the peer", per_s, "/s", found["per_s"], name),
        Figure("decide", f"{name}, resident, without its embedding server", found["resident_mb"], "MB"),
    ]


def _routes() -> dict[str, list[str]]:
    files = sorted((ROOT / "config/routes").glob("*.toml"))
    tables = [tomllib.loads(file.read_text(encoding="utf-8"))["routes"] for file in files]
    return {name: route["examples"] for table in tables for name, route in table.items()}
