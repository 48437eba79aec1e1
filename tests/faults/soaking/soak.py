"""Everything is set up, broken for so many minutes, healed, and judged."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bad_tier import BadTier
from harness import Gateway, Mosquitto, poll
from oracle import Oracle
from proxy import Proxy

from mqrouter.edge.store.reading import open_read_only
from soaking.broker_story import BrokerStory
from soaking.daemon import Daemon
from soaking.faults import Faults, Parts
from soaking.questions import MAX_BYTES, MAX_DEPTH, Questions, Traffic
from soaking.report import Report
from soaking.schedule import ENDS, TIERS, steps
from soaking.verdict import Verdict, judge

DRAIN_S = 180.0
LISTENERS = "oracle/"
"""How the client ids of oracles begin."""
WHEN_FULL = ("reject", "drop_oldest", "drop_lowest")

CONFIG = """
[mqtt]
keepalive_s = 5
connect_timeout_s = 1.0
[limits]
max_payload_bytes = {max_bytes}
max_json_depth = {max_depth}
retain_refused_s = 1e6
dedupe_window_s = 1e6
[queue]
max_requests = 400
when_full = "{when_full}"
[tiers.hub]
url = "{hub}"
total_timeout_s = 3.0
first_token_timeout_s = 2.0
idle_timeout_s = 1.0
connect_timeout_s = 1.0
[tiers.den]
kind = "openai"
url = "{den}"
model = "den"
trusted = true
total_timeout_s = 3.0
first_token_timeout_s = 2.0
idle_timeout_s = 1.0
connect_timeout_s = 1.0
[service]
drain_timeout_s = 2.0
"""
ROUTES = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?", "frost warning for the orchard"]
to = ["hub"]

[routes.care]
examples = ["which fungus is on my tomatoes?"]
to = ["hub", "den"]

[routes.urgent]
examples = ["stop the irrigation pump right now"]
to = ["den"]
when_offline = "reject"
"""

Say = Callable[[str], None]


def run(folder: Path, minutes: float, seed: int, say: Say) -> Report:
    """Returns the report; `say` is told about the progress a few times a second at most."""
    with _parts(folder, seed) as parts:
        faults = Faults(parts, seed)
        started_s = time.monotonic()
        with Traffic(parts.oracle, seed) as traffic:
            for number, step in enumerate(steps(seed), 1):
                left_s = started_s + 60 * minutes - time.monotonic()
                if left_s <= 0:
                    break
                say(
                    f"{left_s:4.0f} s left, {len(parts.oracle.sent)} questions, {len(parts.oracle.answers)} answers,"
                    f" {parts.daemon.kills} kills, step {number}: {step.name} {step.target}"
                )
                faults.do(step)
        say("healing")
        faults.heal()
        asked = [*traffic.questions.asked, *faults.questions.asked]
        troubles = list(_drained(parts, [traffic.questions, faults.questions], say))
        say("judging")
        parts.daemon.close()
        story = BrokerStory(parts.oracle.client_id, LISTENERS).read(parts.broker.lives, faults.killed_brokers)
        calls = list(parts.tiers["hub"].calls)
        verdict = judge(parts.oracle, story, asked, calls, [*troubles, *parts.daemon.offences])
        actions = traffic.questions.counts + faults.questions.counts
        return _report(parts, faults, actions, story, verdict, minutes=minutes, seed=seed)


@contextmanager
def _parts(folder: Path, seed: int) -> Iterator[Parts]:
    with ExitStack() as stack:
        lines = ["max_queued_messages 0", "autosave_interval 2"]
        broker = Mosquitto(folder / "broker", extra=lines).start()
        stack.callback(broker.kill)
        tiers = {name: BadTier().start() for name in TIERS}
        for tier in tiers.values():
            stack.callback(tier.close)
        links = {name: stack.enter_context(Proxy(tier.port)) for name, tier in tiers.items()}
        links["broker"] = stack.enter_context(Proxy(broker.port, is_mqtt=True))
        gateway = _gateway(folder / "gateway", links, random.Random(f"settings {seed}"))
        daemon = Daemon(gateway)
        daemon.launch(is_calm=True)
        stack.callback(_end, daemon)
        daemon.wait_until_ready()
        oracle = stack.enter_context(Oracle(broker, gateway))
        yield Parts(broker, tiers, links, gateway, daemon, oracle)


def _gateway(folder: Path, links: Mapping[str, Proxy], chance: random.Random) -> Gateway:
    hub, den = (f"http://127.0.0.1:{links[name].port}/v1" for name in TIERS)
    values = {"max_bytes": MAX_BYTES, "max_depth": MAX_DEPTH, "hub": hub, "den": den}
    text = CONFIG.format(when_full=chance.choice(WHEN_FULL), **values)
    return Gateway(folder, links["broker"].port, hub, text=text, routes=ROUTES)


def _end(daemon: Daemon) -> None:
    if daemon.life.process.is_running:
        daemon.kill()


def _drained(parts: Parts, sources: Sequence[Questions], say: Say) -> Iterator[str]:
    """Waits until everything has been sent, worked off and delivered; yields what never was."""

    def left() -> dict[str, int]:
        waiting = sum(parts.gateway.status()["requests"].values())
        unsent = sum(questions.unsent for questions in sources)
        found = {"unsent": unsent, "waiting": waiting, "undelivered": _undelivered(parts.oracle.database)}
        say(f"draining: {found}")
        return {name: number for name, number in found.items() if number}

    try:
        poll(lambda: None if left() else True, lambda: f"left: {left()}", DRAIN_S)
    except AssertionError as error:
        yield f"the backlog did not drain: {error}"


def _undelivered(database: Path) -> int:
    with open_read_only(database) as db:
        return int(db.execute("SELECT count(*) FROM outbox WHERE state = 'ready'").fetchone()[0])


def _report(
    parts: Parts,
    faults: Faults,
    actions: Counter[str],
    story: BrokerStory,
    verdict: Verdict,
    *,
    minutes: float,
    seed: int,
) -> Report:
    rows = parts.oracle.ledger().rows
    lives = parts.daemon.lives
    starts_s = [life.start_s for life in lives[1:] if life.is_calm and life.start_s is not None]
    counts = verdict.counts
    return Report(
        minutes=minutes,
        seed=seed,
        sent=counts.sent,
        asked=actions,
        acknowledged=counts.acknowledged,
        rows=counts.rows,
        answers=counts.answers,
        duplicates=counts.duplicates,
        absorbed=sum(row.events.count("duplicate_absorbed") for row in rows),
        ended=Counter(f"{row.state} {row.reason or ''}".strip() for row in rows),
        kills=parts.daemon.kills,
        connections=Counter(protocol for life in lives for protocol in life.protocols),
        faults={name: number for name, number in faults.done.items() if name not in ENDS},
        left_out=faults.left_out,
        broker_losses=story.losses,
        lost_by_broker=verdict.lost_by_broker,
        longest_start_s=max(starts_s, default=0.0),
        starts=len(starts_s),
        peak_mb=max(life.peak_kb for life in lives) / 1024,
        grown_mb=max(life.peak_kb - life.peak_at_ready_kb for life in lives if life.peak_at_ready_kb) / 1024,
        offences=verdict.offences,
        histories=verdict.histories,
    )
