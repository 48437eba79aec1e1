"""api: what 200 looks a second at the queue over HTTP cost the questions that flow in at the same time.

Two flows, each without and with the looks, in turns in one run: 500 questions/s until the daemon has them on disk and
acknowledges them, while it decides as many as the embedder can; and fewer than that, until their answers are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.paced import ask_paced
from benchmarks.parts import (
    broker,
    distinct_questions,
    free_port,
    gateway,
    gateway_config,
    process,
    questions,
    status_of,
    wait_for_port,
    workplace,
)
from benchmarks.report import Figure, percentile
from benchmarks.roundtrip import raw_embeddings_per_s

LOOKS_PER_S = 200.0
ASKED_PER_S = 500.0
ANSWERED_SHARE = 0.5
"""Of the rate at which this machine embeds questions just now: what the daemon sustains with ease."""
TURNS = 4
TURN_S = 4.0
WAIT_S = 120.0
TOPIC = "mqrouter/farm/ask/device-{}"
LOOKS = (
    "/v1/requests",
    "/v1/requests?state=received&state=pending&state=leased",
    "/v1/requests/{id}",
    "/v1/requests?device=device-7",
    "/v1/requests",
    "/v1/stats",
    "/v1/requests?route=crop_disease&sort=oldest",
    "/v1/requests?state=dead&state=expired",
    "/v1/requests/{id}",
    "/v1/requests?tier=hub&error=HTTP%20503",
)


@dataclass(slots=True)
class Half:
    """What was measured without the looks, or with them."""

    answered_ms: list[float] = field(default_factory=list)
    acknowledged_ms: list[float] = field(default_factory=list)
    asked_per_s: list[float] = field(default_factory=list)
    looked_ms: list[float] = field(default_factory=list)
    looks_per_s: list[float] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)


def measure(*, share: float) -> list[Figure]:
    turns, turn_s = (TURNS, TURN_S) if share == 1.0 else (1, 2.0)
    with workplace() as folder, broker(folder) as broker_port:
        port, web_port, file = free_port(), free_port(), folder / "waits.json"
        config = gateway_config(folder, port, threads=1)
        config.write_text(f"{config.read_text()}[http]\nport = {web_port}\n")
        embedded_per_s = asyncio.run(raw_embeddings_per_s(config, questions()[:300]))
        answered_per_s = round(ANSWERED_SHARE * embedded_per_s)
        with _module("relay", str(port), str(broker_port), str(file)):
            wait_for_port(port, "the relay")
            with gateway(config):
                halves = _Halves(broker_port, web_port, folder / "data" / "control.sock", turns, turn_s)
                accepted = halves.flow(ASKED_PER_S)
                answered = halves.flow(answered_per_s)
        waits = json.loads(file.read_text(encoding="utf-8"))
    for half in accepted:
        half.acknowledged_ms = [
            1000 * elapsed for at, elapsed in waits if any(begun <= at <= ended for begun, ended in half.spans)
        ]
    return [
        *_figures(f"{ASKED_PER_S:g} questions/s, acknowledged", accepted, lambda half: half.acknowledged_ms),
        *_figures(f"{answered_per_s} questions/s, answered", answered, lambda half: half.answered_ms),
        *_rates(accepted),
    ]


def _figures(what: str, halves: tuple[Half, Half], times_ms: Callable[[Half], Sequence[float]]) -> Iterator[Figure]:
    alone, looked_at = map(times_ms, halves)
    for share, name, target in ((0.5, "p50", ""), (0.99, "p99", "<= 1.2")):
        value, reference = percentile(looked_at, share), percentile(alone, share)
        yield Figure("api", f"{what}: {name}", value, "ms", reference, "nobody looking", target)


def _rates(halves: tuple[Half, Half]) -> list[Figure]:
    _, looked_at = halves
    return [
        Figure("api", "a look meanwhile, p50", percentile(looked_at.looked_ms, 0.5), "ms"),
        Figure("api", "a look meanwhile, p99", percentile(looked_at.looked_ms, 0.99), "ms", 100, "limit", "<= 1.0"),
        Figure("api", "looks", min(looked_at.looks_per_s), "/s", LOOKS_PER_S, "wanted", ">= 0.95"),
        Figure("api", "questions meanwhile", min(looked_at.asked_per_s), "/s", ASKED_PER_S, "wanted", ">= 0.95"),
    ]


class _Halves:
    """Takes turns, so that whatever else the machine does meets both halves alike."""

    def __init__(self, broker_port: int, web_port: int, control: Path, turns: int, turn_s: float) -> None:
        self._broker_port, self._web_port, self._control = broker_port, web_port, control
        self._turns, self._turn_s = turns, turn_s
        self._asked = 0

    def flow(self, per_s: float) -> tuple[Half, Half]:
        """Returns what was measured without the looks, and with them."""
        alone, looked_at = Half(), Half()
        self._ask(Half(), per_s, 1.0)
        for _ in range(self._turns):
            self._ask(alone, per_s, self._turn_s)
            self._ask(looked_at, per_s, self._turn_s, _looking(self._web_port, looked_at))
        return alone, looked_at

    def _ask(
        self,
        half: Half,
        per_s: float,
        seconds: float,
        meanwhile: contextlib.AbstractContextManager[None] = contextlib.nullcontext(),  # noqa: B008  it has no state
    ) -> None:
        first, number = self._asked, int(per_s * seconds)
        self._asked += number
        texts = [f"{text} [{first}]" for text in distinct_questions(number)]
        topics = [TOPIC.format(index % 20) for index in range(number)]
        flow = ask_paced(self._broker_port, topics, [text.encode() for text in texts], per_s, meanwhile)
        half.spans.append((flow.begun_s, flow.ended_s))
        half.answered_ms += [1000 * latency for latency in flow.latencies_s]
        half.asked_per_s.append(flow.per_s)
        self._wait_until_quiet()

    def _wait_until_quiet(self) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while sum(status_of(self._control).get("requests", {"?": 1}).values()):
            if time.monotonic() > deadline_s:
                raise SystemExit("bench: the questions were not done with")
            time.sleep(0.05)


@contextmanager
def _looking(port: int, half: Half) -> Iterator[None]:
    """Somebody looks while the block runs; what that took is added to `half`."""
    command = [sys.executable, "-m", "benchmarks.looker", str(port), str(LOOKS_PER_S), *LOOKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        try:
            yield
        finally:
            looker.terminate()
            output, _ = looker.communicate(timeout=WAIT_S)
    found = json.loads(output)
    half.looked_ms += found["times_ms"]
    half.looks_per_s.append(found["per_s"])


def _module(name: str, *arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process([sys.executable, "-m", f"benchmarks.{name}", *arguments])
