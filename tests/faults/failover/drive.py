"""All faults at once, each at a tier of its own: a real broker and daemon, a question, and who answered it when."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from bad_tier import BadTier
from harness import Gateway, Mosquitto, Requester, StubTier, free_port

from failover.faults import (
    BAD,
    CONNECT_LIMIT_S,
    FAULTS,
    FIRST_TOKEN_LIMIT_S,
    GOOD,
    IDLE_LIMIT_S,
    TOTAL_LIMIT_S,
    Fault,
    Kind,
    Place,
)

NOBODY = "nobody"
GRACE_S = 5.0
"""After the deadline, for an error that says why."""
CONFIG = """
[tiers.hub]
concurrency = 64
[routing.abstain]
to = ["hub"]
[retry]
probe_min_s = 60.0
probe_max_s = 60.0
"""
TIER = f"""
[tiers.%(name)s]
kind = "%(kind)s"
url = "%(url)s"
model = "bad"
connect_timeout_s = {CONNECT_LIMIT_S}
first_token_timeout_s = {FIRST_TOKEN_LIMIT_S}
idle_timeout_s = {IDLE_LIMIT_S}
total_timeout_s = {TOTAL_LIMIT_S}
"""
ROUTE = """
[routes.%(name)s]
examples = ["a question for %(name)s"]
to = ["%(name)s", "hub"]
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one fault; an error's code stands for whoever answered."""

    fault: Fault
    answered_by: tuple[str, ...]
    elapsed_s: float
    """Of the first question, from its publication to its answer."""
    deadline_s: float
    calls: int
    """Chat completions the bad tier was asked for."""

    @property
    def is_right(self) -> bool:
        is_in_time = self.elapsed_s <= self.deadline_s
        return is_in_time and self.answered_by == tuple(self.fault.answered_by) and self.calls == self.fault.calls


@dataclass(frozen=True)
class Bad:
    """A fault's own tier, and the route that begins with it."""

    name: str
    fault: Fault
    server: BadTier

    @property
    def url(self) -> str:
        match self.fault.place:
            case Place.NOBODY:
                return f"http://127.0.0.1:{free_port()}/v1"
            case Place.NOWHERE:
                return "http://no-such-host.invalid/v1"
        return self.server.url.removesuffix("/v1") if self.fault.kind is Kind.OLLAMA else self.server.url


def run(folder: Path, *, slack_s: float) -> list[Outcome]:
    """Returns the outcomes; a deadline is what the limits make it wait for, and `slack_s`."""
    with _site(folder) as (requester, bads), ThreadPoolExecutor(len(bads)) as askers:
        return list(askers.map(lambda bad: _outcome(requester, bad, slack_s), bads))


@contextmanager
def _site(folder: Path) -> Iterator[tuple[Requester, list[Bad]]]:
    with ExitStack() as stack:
        bads = [Bad(f"bad{number}", fault, _server(fault)) for number, fault in enumerate(FAULTS)]
        for bad in bads:
            bad.server.script = bad.fault.script
            stack.enter_context(closing(bad.server.start()))
        good = stack.enter_context(closing(StubTier().start()))
        broker = Mosquitto(folder / "broker").start()
        stack.callback(broker.kill)
        tiers = [TIER % {"name": bad.name, "kind": bad.fault.kind, "url": bad.url} for bad in bads]
        routes = "".join(ROUTE % {"name": bad.name} for bad in bads)
        text = CONFIG + "".join(tiers)
        gateway = Gateway(folder / "gateway", broker.port, good.url, text=text, routes=routes)
        stack.enter_context(closing(gateway))
        gateway.start()
        yield stack.enter_context(Requester(broker.port)).subscribe("answers"), bads


def _server(fault: Fault) -> BadTier:
    if fault.place is not Place.NOT_TRUSTED:
        return BadTier()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return BadTier(tls=context)


def _outcome(requester: Requester, bad: Bad, slack_s: float) -> Outcome:
    deadline_s = bad.fault.limit_s + slack_s
    asked = [_ask(requester, bad, number, deadline_s) for number in range(len(bad.fault.answered_by))]
    answered_by = tuple(who for who, _ in asked)
    return Outcome(bad.fault, answered_by, asked[0][1], deadline_s, len(bad.server.calls))


def _ask(requester: Requester, bad: Bad, number: int, deadline_s: float) -> tuple[str, float]:
    """Returns who answered, or the code of the error, and after how long."""
    key = f"{bad.name}-{number}"
    payload = json.dumps({"question": f"{key}?", "route": bad.name, "ttl_s": deadline_s})
    started_s = time.monotonic()
    requester.publish(f"mqrouter/farm/ask/{bad.name}", payload, reply_to="answers", correlation=key.encode())
    try:
        answer = requester.answer_to(key.encode(), timeout_s=deadline_s + GRACE_S)
    except AssertionError:
        return NOBODY, time.monotonic() - started_s
    elapsed_s = time.monotonic() - started_s
    if answer.error_code is not None:
        return answer.error_code, elapsed_s
    return {bad.name: BAD, "hub": GOOD}[answer.properties["mq-tier"]], elapsed_s
