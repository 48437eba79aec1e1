"""The parts of a watch: a broker, four tiers, and a daemon every byte of which is traced."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from harness import Gateway, Mosquitto, Process, poll

from watching.taped_tier import TapedTier
from watching.trace import END_S, Sent, tracer, tracing

READY_S = 120.0
TIERS = ("hub", "cloud", "barn", "den")

CONFIG = """
[limits]
device_rate_per_minute = 1000000
[tiers.hub]
{limits}
[tiers.cloud]
kind = "openai"
url = "{cloud}"
model = "cloud"
redact = true
{limits}
[tiers.barn]
kind = "openai"
url = "{barn}"
model = "barn"
trusted = {barn_is_trusted}
{limits}
[tiers.den]
kind = "openai"
url = "{den}"
model = "den"
trusted = true
{limits}
[tiers.edge]
kind = "local"
max_tokens = 4
[privacy]
topics = ["mqrouter/farm/ask/office/#"]
devices = ["nurse*"]
[retry]
max_attempts = 5
[log]
include_text = true
[service]
drain_timeout_s = 2.0
"""
LIMITS = "total_timeout_s = 3.0\nfirst_token_timeout_s = 1.0\nidle_timeout_s = 1.0\nconnect_timeout_s = 1.0"
ROUTE_TABLES = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?"]
to = ["hub", "den"]

[routes.care]
examples = ["which fungus is on my tomatoes?"]
to = ["hub", "cloud"]

[routes.herd]
examples = ["how are the cows?"]
to = ["barn", "hub", "den"]

[routes.lone]
examples = ["how is the horse?"]
to = ["barn"]

[routes.climb]
examples = ["write a program that sorts my fields"]
to = ["hub", "cloud", "barn", "den"]

[routes.urgent]
examples = ["stop the irrigation pump right now"]
to = ["hub"]
when_offline = "reject"

[routes.quick]
examples = ["thank you very much"]
to = ["hub"]
when_offline = "answer_locally"
"""


@dataclass
class WatchedSite:
    folder: Path
    broker: Mosquitto
    tiers: Mapping[str, TapedTier]
    gateway: Gateway
    barn_is_trusted: bool = True
    closed: list[tuple[int, int]] = field(default_factory=list)
    """Stretches of barn's tape while it was not trusted."""
    logs: list[Path] = field(default_factory=list)
    lives: list[Process] = field(default_factory=list)
    tracers: list[psutil.Process] = field(default_factory=list)
    _closed_since: int | None = None

    def launch(self) -> None:
        """Returns once the daemon is ready."""
        log = self.folder / f"trace-{len(self.logs)}"
        self.logs.append(log)
        self.gateway.launch(through=tracing(log))
        self.lives.append(self.gateway.log)
        self.gateway.wait_for_event("daemon.ready", READY_S)
        self.tracers.append(tracer(log))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.gateway.log.end(number, READY_S)

    def configure(self, *, barn_is_trusted: bool) -> None:
        self.barn_is_trusted = barn_is_trusted
        urls = {name: tier.url for name, tier in self.tiers.items()}
        text = CONFIG.format(**urls, limits=LIMITS, barn_is_trusted=str(barn_is_trusted).lower())
        self.gateway.write(self.broker.port, urls["hub"], text)

    def close_barn(self) -> None:
        """Nothing private may be sent there from here on."""
        self._closed_since = len(self.tiers["barn"].tape)

    def open_barn(self) -> None:
        if self._closed_since is not None:
            self.closed.append((self._closed_since, len(self.tiers["barn"].tape)))
        self._closed_since = None

    def in_flight(self, tier: str) -> int:
        return int(self.gateway.status()["tiers"][tier]["in_flight"])

    def wait_until_idle(self, tier: str) -> None:
        poll(lambda: True if self.in_flight(tier) == 0 else None, lambda: f"{tier} is still asked", READY_S)

    def sent(self) -> Sent:
        """What all lives of the daemon have sent; they have ended."""
        sent = Sent()
        _, alive = psutil.wait_procs(self.tracers, END_S)
        assert not alive, f"still tracing: {alive}"
        for log in self.logs:
            sent.read(log)
        return sent


@contextmanager
def watched_site(folder: Path, seed: int) -> Iterator[WatchedSite]:
    with ExitStack() as stack:
        broker = Mosquitto(folder / "broker", extra=["max_queued_messages 0"]).start()
        stack.callback(broker.kill)
        tiers = {name: TapedTier(name, seed).start() for name in TIERS}
        for tier in tiers.values():
            stack.callback(tier.close)
        gateway = Gateway(folder / "gateway", broker.port, tiers["hub"].url, routes=ROUTE_TABLES)
        site = WatchedSite(folder, broker, tiers, gateway)
        site.configure(barn_is_trusted=True)
        stack.callback(lambda: site.kill() if gateway.process is not None and gateway.process.is_running else None)
        site.launch()
        yield site
