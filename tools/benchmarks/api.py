"""api: what 200 looks a second at the queue over HTTP cost the questions that flow in at the same time.

Two flows: 500 questions/s until the daemon has them on disk and acknowledges them, while it decides as many as the
embedder can; and fewer than that, until their answers are here. Each in turns of three kinds: nobody looks, somebody
looks at the gateway, and somebody looks at a server beside it that knows nothing of it: what that costs is the price of
so much HTTP on this machine. Of the turns' percentiles the median counts: a disk that stalls spoils one turn only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.paced import ask_paced
from benchmarks.parts import (
    broker,
    distinct_questions,
    free_port,
    gateway,
    gateway_config,
    process,
    questions,
    wait_for_port,
    workplace,
)
from benchmarks.report import Figure, percentile
from benchmarks.roundtrip import raw_embeddings_per_s

LOOKS_PER_S = 200.0
ASKED_PER_S = 500.0
ANSWERED_SHARE = 0.5
"""Of the rate at which this machine embeds questions just now: what the daemon sustains with ease."""
TURNS = 7
TURN_S = 3.0
LOOKER_END_S = 120.0
PAGE_BYTES = 16_384
"""Of each answer of the server beside it: between a full page and an empty one."""
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
class Turns:
    """What was measured in the turns of one kind."""

    answered_ms: list[list[float]] = field(default_factory=list)
    acknowledged_ms: list[list[float]] = field(default_factory=list)
    asked_per_s: list[float] = field(default_factory=list)
    looked_ms: list[float] = field(default_factory=list)
    looks_per_s: list[float] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kinds:
    alone: Turns = field(default_factory=Turns)
    looked_at: Turns = field(default_factory=Turns)
    beside: Turns = field(default_factory=Turns)


def measure(*, share: float) -> list[Figure]:
    turns, turn_s = (TURNS, TURN_S) if share == 1.0 else (1, 2.0)
    with workplace() as folder, broker(folder) as broker_port, _bare_server() as bare_port:
        embedded_per_s = asyncio.run(
            raw_embeddings_per_s(gateway_config(folder, broker_port, threads=1), questions()[:300])
        )
        flows = _Flows(broker_port, bare_port, turns, turn_s)
        with _relay(folder, broker_port) as (relay_port, waits), _gateway(folder / "accepted", relay_port) as web_port:
            accepted = flows.run(web_port, ASKED_PER_S, is_awaited=False)
        with _gateway(folder / "answered", broker_port) as web_port:
            answered_per_s = round(ANSWERED_SHARE * embedded_per_s)
            answered = flows.run(web_port, answered_per_s, is_awaited=True)
        found = json.loads(waits.read_text(encoding="utf-8"))
    for kind in (accepted.alone, accepted.looked_at, accepted.beside):
        kind.acknowledged_ms = [
            [1000 * elapsed for at, elapsed in found if begun <= at <= ended] for begun, ended in kind.spans
        ]
    return [
        *_figures(f"{ASKED_PER_S:g} questions/s, acknowledged", accepted, lambda turns: turns.acknowledged_ms),
        *_figures(f"{answered_per_s} questions/s, answered", answered, lambda turns: turns.answered_ms),
        *_rates(accepted.looked_at),
    ]


def _figures(what: str, kinds: Kinds, times_ms: Callable[[Turns], Sequence[Sequence[float]]]) -> Iterator[Figure]:
    for share, name, target in ((0.5, "p50", ""), (0.99, "p99", "<= 1.2")):
        alone, looked_at, beside = (
            median(percentile(turn, share) for turn in times_ms(turns))
            for turns in (kinds.alone, kinds.looked_at, kinds.beside)
        )
        yield Figure("api", f"{what}: {name}", looked_at, "ms", alone, "nobody looking", target)
        yield Figure("api", f"{what}: {name}", looked_at, "ms", beside, "looks at a server beside it", target)


def _rates(looked_at: Turns) -> list[Figure]:
    return [
        Figure("api", "a look meanwhile, p50", percentile(looked_at.looked_ms, 0.5), "ms"),
        Figure("api", "a look meanwhile, p99", percentile(looked_at.looked_ms, 0.99), "ms", 100, "limit", "<= 1.0"),
        Figure("api", "looks", min(looked_at.looks_per_s), "/s", LOOKS_PER_S, "wanted", ">= 0.95"),
        Figure("api", "questions meanwhile", min(looked_at.asked_per_s), "/s", ASKED_PER_S, "wanted", ">= 0.95"),
    ]


class _Flows:
    """The kinds take turns, so that whatever else the machine does meets all of them alike."""

    def __init__(self, broker_port: int, bare_port: int, turns: int, turn_s: float) -> None:
        self._broker_port, self._bare_port = broker_port, bare_port
        self._turns, self._turn_s = turns, turn_s
        self._asked = 0

    def run(self, web_port: int, per_s: float, *, is_awaited: bool) -> Kinds:
        kinds = Kinds()
        self._ask(Turns(), per_s, 1.0, None, is_awaited=is_awaited)
        for _ in range(self._turns):
            for turns, port in ((kinds.alone, None), (kinds.looked_at, web_port), (kinds.beside, self._bare_port)):
                self._ask(turns, per_s, self._turn_s, port, is_awaited=is_awaited)
        return kinds

    def _ask(self, turns: Turns, per_s: float, seconds: float, looked_at: int | None, *, is_awaited: bool) -> None:
        first, number = self._asked, int(per_s * seconds)
        self._asked += number
        texts = [f"{text} [{first}]".encode() for text in distinct_questions(number)]
        topics = [TOPIC.format(index % 20) for index in range(number)]
        meanwhile = contextlib.nullcontext() if looked_at is None else _looking(looked_at, turns)
        flow = ask_paced(self._broker_port, topics, texts, per_s, meanwhile, is_awaited=is_awaited)
        turns.spans.append((flow.begun_s, flow.ended_s))
        turns.answered_ms.append([1000 * latency for latency in flow.latencies_s])
        turns.asked_per_s.append(flow.per_s)


@contextmanager
def _gateway(folder: Path, broker_port: int) -> Iterator[int]:
    """The daemon with an empty database; yields its HTTP port."""
    folder.mkdir()
    web_port, config = free_port(), gateway_config(folder, broker_port, threads=1)
    config.write_text(f"{config.read_text()}[http]\nport = {web_port}\n")
    with gateway(config):
        yield web_port


@contextmanager
def _relay(folder: Path, broker_port: int) -> Iterator[tuple[int, Path]]:
    """Yields the port for the daemon, and the file that tells the waits once the relay has ended."""
    port, waits = free_port(), folder / "waits.json"
    with _module("relay", str(port), str(broker_port), str(waits)):
        wait_for_port(port, "the relay")
        yield port, waits


@contextmanager
def _bare_server() -> Iterator[int]:
    port = free_port()
    with _module("bare_http", str(port), str(PAGE_BYTES)):
        wait_for_port(port, "the server beside it")
        yield port


@contextmanager
def _looking(port: int, turns: Turns) -> Iterator[None]:
    """Somebody looks while the block runs; what that took is added to `turns`."""
    command = [sys.executable, "-m", "benchmarks.looker", str(port), str(LOOKS_PER_S), *LOOKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        try:
            yield
        finally:
            looker.terminate()
            output, _ = looker.communicate(timeout=LOOKER_END_S)
    found = json.loads(output)
    turns.looked_ms += found["times_ms"]
    turns.looks_per_s.append(found["per_s"])


def _module(name: str, *arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process([sys.executable, "-m", f"benchmarks.{name}", *arguments])
