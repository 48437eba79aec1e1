"""The gateway as its operator sees it: the `mqrouter` command, and the daemon's control socket."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from demo_parts.processes import Children
from mqrouter.cli.daemon import DaemonDownError, call_daemon
from mqrouter.settings import Settings

COMMAND = Path(sys.executable).with_name("mqrouter")
PULL_TIMEOUT_S = 1800.0
COMMAND_TIMEOUT_S = 60.0


class Gateway:
    def __init__(self, children: Children, config: Path, settings: Settings) -> None:
        self._children = children
        self.config = config
        self.settings = settings

    def pull_models(self) -> None:
        """Both default models are on disk, verified, and known to run on this machine."""
        words = ("models", "pull", "-c", self.config)
        self._children.run("mqrouter models pull", COMMAND, *words, timeout_s=PULL_TIMEOUT_S, is_shown=True)

    def start(self) -> None:
        self._children.start("daemon", COMMAND, "run", "-c", self.config)

    def status(self) -> dict[str, Any] | None:
        """Returns what `mqrouter status` shows, None while the daemon is not there."""
        try:
            code, body = call_daemon(self.settings.control_socket, "GET", "/v1/status")
        except DaemonDownError:
            return None
        return body if code == 200 else None

    def is_ready(self) -> dict[str, Any] | None:
        status = self.status()
        return status if status and status["ready"] else None

    def pending_with_open_breaker(self, tier: str) -> str | None:
        """Returns why the tier is left alone, once it is and a question waits for it."""
        status = self.status()
        if status and status["requests"]["pending"] and status["tiers"][tier]["breaker"] == "open":
            return str(status["tiers"][tier]["reason"])
        return None

    def is_tier_up(self, tier: str) -> bool:
        status = self.status()
        return status is not None and status["tiers"][tier]["breaker"] != "open"

    def has_delivered(self, count: int) -> bool:
        status = self.status()
        return status is not None and status["delivered"] >= count

    def line(self, *words: str) -> str:
        """Returns a command of this gateway, to be copied."""
        return shlex.join([str(COMMAND), *words, "-c", str(self.config)])

    def queue_list(self) -> str:
        return self._queue("list")

    def queue_show(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self._queue("show", name, "--json"))
        return shown

    def _queue(self, verb: str, *options: str) -> str:
        words = ("queue", verb, "-c", str(self.config), *options)
        return self._children.run(f"mqrouter queue {verb}", COMMAND, *words, timeout_s=COMMAND_TIMEOUT_S)
