"""A gateway in the middle of a farm's day: a hub that is down, questions that wait for it, and an operator's page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from chromium import Tab
from harness import Requester, Site, free_port, poll, running_site

PATIENCE_S = 60.0
OPERATOR, VIEWER = "operator-token-of-the-farm", "viewer-token-of-the-farm"
CONFIG = """
[http]
enabled = true
port = {port}
operator_token = {{ file = "{folder}/operator.token" }}
viewer_token = {{ file = "{folder}/viewer.token" }}

[tiers.regional]
kind = "openai"
url = "http://127.0.0.1:{dead_port}/v1"
model = "qwen2.5"
requests_per_minute = 60

[limits]
device_rate_per_minute = 100000
"""


@dataclass
class Farm:
    site: Site
    url: str
    devices: Requester
    """All of them at once; it hears every answer."""
    numbers: Iterator[int]

    def ask(self, device: str, question: str = "will there be frost tonight", **more: Any) -> None:
        """A question that is like no other."""
        self.devices.publish(f"mqrouter/farm/ask/{device}", f"{question}, field {next(self.numbers)}?", **more)

    def waiting(self, device: str, number: int = 1, **more: Any) -> list[str]:
        """As many questions of a device that wait for the hub, which is down; returns their ids."""
        for _ in range(number):
            self.ask(device, **more)
        return self.wait_for(device, "pending", number)

    def wait_for(self, device: str, state: str, number: int = 1) -> list[str]:
        def found() -> list[str] | None:
            ids = [row["id"] for row in self.of(device) if row["state"] == state]
            return ids if len(ids) >= number else None

        return poll(found, lambda: f"{number} {state} of {device} in {self.of(device)}", PATIENCE_S)

    @property
    def pending(self) -> int:
        return sum(row["state"] == "pending" for row in self.site.gateway.requests())

    def of(self, device: str) -> list[dict[str, Any]]:
        return [row for row in self.site.gateway.requests() if row["device"] == device]

    def row(self, request_id: str) -> dict[str, Any]:
        return next(row for row in self.site.gateway.requests() if row["id"] == request_id)

    def log_in(self, tab: Tab, token: str = OPERATOR, onward: str = "/") -> None:
        tab.open(f"/login?next={onward}")
        tab.fill("#token", token)
        tab.follow("#login-form button")
        assert tab.path == onward.partition("?")[0], tab.text()


@contextmanager
def running_farm(folder: Path, *, text: str = "") -> Iterator[Farm]:
    for name, token in (("operator", OPERATOR), ("viewer", VIEWER)):
        secret = folder / f"{name}.token"
        secret.write_text(token, encoding="utf-8")
        secret.chmod(0o600)
    port = free_port()
    config = CONFIG.format(port=port, folder=folder, dead_port=free_port()) + text
    with running_site(folder, text=config) as site, site.requester() as devices:
        farm = Farm(site, f"http://127.0.0.1:{port}", devices.subscribe("mqrouter/farm/answer/#"), count(1))
        farm.ask("barn", "good morning, will there be frost")
        farm.wait_for("barn", "delivered")
        site.tier.stop()
        farm.waiting("orchard", 3)
        yield farm
