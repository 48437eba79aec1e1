"""The hands of the schedule: each step of it is a method here."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from bad_tier import BadTier, Script, echo
from harness import Gateway, Mosquitto, poll
from oracle import Oracle
from proxy import Proxy, Way

from mqrouter.cli.daemon import DaemonDownError, call_daemon
from soaking.daemon import READY, Daemon
from soaking.questions import Questions
from soaking.replies import SCRIPTS, linger
from soaking.schedule import Step

AT_WORK_S = 1.0
START_S = 5.0
MAX_MS = 10.0
SEEN_S = 1.0
EXIT_CODES = (0, 3, 69)
"""Of a command that reads: found, found nothing, no database yet."""


@dataclass
class Parts:
    """Everything that can be broken."""

    broker: Mosquitto
    tiers: Mapping[str, BadTier]
    links: Mapping[str, Proxy]
    gateway: Gateway
    daemon: Daemon
    oracle: Oracle


class Faults:
    """Carries steps out. What it cannot do at the moment it counts and leaves."""

    def __init__(self, parts: Parts, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.killed_brokers: set[int] = set()
        """The numbers of its lives that ended so."""
        self.questions = Questions(parts.oracle, Random(f"bursts {seed}"), "f")
        self._parts = parts
        self._wrong: set[str] = set()
        """What is between the daemon and a broker that works."""
        self._moment = threading.Event()  # never set: pauses are part of the schedule
        self._actions: dict[str, Callable[[str, float], bool | None]] = {
            **{name: getattr(self, f"_{name}") for name in ACTIONS},
            **{name: partial(self._spoil, script) for name, script in SCRIPTS.items()},
        }

    def do(self, step: Step) -> None:
        self._moment.wait(step.pause_s)
        self._parts.daemon.look_after()
        is_done = self._actions[step.name](step.target, step.draw)
        counts = self.left_out if is_done is False else self.done
        counts[step.name] += 1

    def heal(self) -> None:
        """Nothing is wrong any more."""
        for link in self._parts.links.values():
            link.heal()
        for tier in self._parts.tiers.values():
            tier.script = echo
        if not self._parts.broker.log.is_running:
            self._parts.broker.start()
        self._wrong.clear()
        self._parts.daemon.wait_until_ready()
        for name in self._parts.tiers:
            self._steer(f"/v1/tiers/{name}/resume")

    # --- the daemon ---------------------------------------------------------------------------------

    def _launch(self) -> None:
        self._parts.daemon.launch(is_calm=not self._wrong)

    def _disturb(self, what: str) -> None:
        """Noted until it is discarded."""
        self._wrong.add(what)
        self._disturb_start()

    def _disturb_start(self) -> None:
        """If the daemon is starting, how long that takes says nothing."""
        life = self._parts.daemon.life
        life.is_calm &= life.start_s is not None

    def _kill(self, _target: str, _draw: float) -> None:
        self._parts.daemon.kill()
        self._launch()

    def _kill_at_work(self, _target: str, draw: float) -> bool:
        """Killed in the milliseconds after the first question of many has been sent to it."""
        log = self._parts.broker.log
        before = len(log.lines)
        self.questions.burst(40)
        is_at_work = not self._parts.daemon.is_frozen and _happens(
            lambda: log.wait_for_line(self._is_to_daemon, AT_WORK_S, after=before)
        )
        self._moment.wait(draw * draw * MAX_MS / 1000)
        self._kill("", draw)
        return is_at_work

    def _is_to_daemon(self, line: str) -> bool:
        return f" Sending PUBLISH to {self._parts.oracle.client_id} " in line

    def _kill_while_starting(self, _target: str, draw: float) -> None:
        self._kill("", draw)
        self._moment.wait(draw)
        self._kill("", draw)

    def _terminate(self, _target: str, _draw: float) -> None:
        self._parts.daemon.terminate()
        self._launch()

    def _freeze(self, _target: str, _draw: float) -> None:
        self._disturb("frozen")
        self._parts.daemon.freeze()

    def _thaw(self, _target: str, _draw: float) -> None:
        self._parts.daemon.thaw()
        self._wrong.discard("frozen")

    # --- the broker ---------------------------------------------------------------------------------

    def _stop_broker(self, _target: str, _draw: float) -> None:
        self._disturb("broker")
        self._parts.broker.stop()

    def _kill_broker(self, _target: str, _draw: float) -> None:
        self._disturb("broker")
        self._kill_it(with_sessions_lost=False)

    def _kill_it(self, *, with_sessions_lost: bool) -> None:
        broker = self._parts.broker
        broker.kill(with_sessions_lost=with_sessions_lost)
        self.killed_brokers.add(len(broker.lives) - 1)

    def _start_broker(self, _target: str, _draw: float) -> None:
        self._parts.broker.start()
        self._wrong.discard("broker")

    def _forget_sessions(self, _target: str, draw: float) -> bool:
        """The broker forgets everything while the daemon is about to write what it has been sent."""
        daemon, broker = self._parts.daemon, self._parts.broker
        daemon.thaw()
        if not _happens(lambda: daemon.life.process.wait_for_line(lambda line: READY in line, START_S)):
            return False
        self._disturb("broker")
        with self._held_writes():
            self.questions.burst(20)
            was_sent = self._seen(len(broker.log.lines))
            self._kill_it(with_sessions_lost=True)
            broker.start()
            self.questions.burst(10)
            was_sent &= self._seen(0)
        self._wrong.discard("broker")
        return was_sent

    def _seen(self, after: int) -> bool:
        log = self._parts.broker.log
        return _happens(lambda: log.wait_for_line(self._is_to_daemon, SEEN_S, after=after))

    @contextmanager
    def _held_writes(self) -> Iterator[None]:
        """No transaction of the daemon gets through."""
        with closing(sqlite3.connect(self._parts.oracle.database, isolation_level=None, timeout=10.0)) as other:
            other.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                other.execute("ROLLBACK")

    # --- the links ----------------------------------------------------------------------------------

    def _way(self, target: str) -> Way:
        name, _, way = target.partition(" ")
        link = self._parts.links[name]
        if name == "broker":
            self._disturb("link")
        return link.up if way == "up" else link.down

    def _reset(self, target: str, _draw: float) -> None:
        if target == "broker":
            self._disturb_start()
        self._parts.links[target].reset()

    def _tear(self, target: str, draw: float) -> None:
        way = self._way(target)
        if target.startswith("broker"):
            way.reset_in_packet(1 + int(5 * draw))
        else:
            way.reset_after(1 + int(600 * draw))

    def _stall(self, target: str, _draw: float) -> None:
        self._way(target).stall()

    def _swallow(self, target: str, _draw: float) -> None:
        self._way(target).swallow()

    def _slice(self, target: str, draw: float) -> None:
        self._way(target).slice(1 + int(7 * draw))

    def _throttle(self, target: str, draw: float) -> None:
        self._way(target).throttle(2_000 + 20_000 * draw)

    def _delay(self, target: str, draw: float) -> None:
        self._way(target).delay(0.05 + 0.3 * draw)

    def _shut(self, target: str, _draw: float) -> None:
        self._parts.links[target].refuse()
        self._parts.links[target].reset()

    def _heal(self, target: str, _draw: float) -> None:
        name = target.partition(" ")[0]
        self._parts.links[name].heal()
        if name == "broker":
            self._wrong.discard("link")

    # --- the tiers ----------------------------------------------------------------------------------

    def _spoil(self, script: Script, target: str, _draw: float) -> None:
        self._parts.tiers[target].script = script

    def _mend(self, target: str, _draw: float) -> None:
        self._parts.tiers[target].script = echo

    # --- the operator -------------------------------------------------------------------------------

    def _pause(self, target: str, _draw: float) -> bool:
        return self._steer(f"/v1/tiers/{target}/pause")

    def _resume(self, target: str, _draw: float) -> bool:
        return self._steer(f"/v1/tiers/{target}/resume")

    def _cancel(self, _target: str, draw: float) -> bool:
        return self._steer_request("cancel", draw)

    def _cancel_at_work(self, _target: str, draw: float) -> bool:
        """Cancelled while a tier works on it: its answer comes all the same, and too late."""
        scripts = {tier: tier.script for tier in self._parts.tiers.values()}
        for tier in scripts:
            tier.script = linger
        self.questions.burst(4)
        is_done = _happens(lambda: poll(self._leased, lambda: "nothing is at a tier", AT_WORK_S))
        is_done = is_done and self._steer_request("cancel", draw, states=("leased",))
        for tier, script in scripts.items():
            tier.script = script
        return is_done

    def _leased(self) -> bool | None:
        return any(row["state"] == "leased" for row in self._parts.gateway.requests()) or None

    def _retry(self, _target: str, draw: float) -> bool:
        return self._steer_request("retry", draw)

    def _steer_request(self, verb: str, draw: float, states: Sequence[str] = ("pending", "leased")) -> bool:
        waiting = [row for row in self._parts.gateway.requests() if row["state"] in states]
        return bool(waiting) and self._steer(f"/v1/requests/{waiting[int(draw * len(waiting))]['id']}/{verb}")

    def _steer(self, target: str) -> bool:
        if self._parts.daemon.is_frozen:
            return False
        try:
            status, _ = call_daemon(self._parts.gateway.folder / "data" / "control.sock", "POST", target)
        except DaemonDownError:
            return False
        return status == 200

    def _list(self, _target: str, draw: float) -> None:
        """Reads along as an operator does, whatever the daemon goes through."""
        state = ["--all", "--state=pending", "--state=answered", "--state=dead"][int(4 * draw)]
        result = self._parts.gateway.cli("queue", "list", state, "--json", timeout_s=60.0)
        if result.returncode not in EXIT_CODES or "Traceback" in result.stderr:
            self._parts.daemon.offences.append(f"`mqrouter queue list {state}` ended with {result}")
        elif result.returncode == 0:
            json.loads(result.stdout)


ACTIONS = (
    *("kill", "kill_at_work", "kill_while_starting", "terminate", "freeze", "thaw"),
    *("stop_broker", "kill_broker", "start_broker", "forget_sessions"),
    *("reset", "tear", "stall", "swallow", "slice", "throttle", "delay", "shut", "heal", "mend"),
    *("pause", "resume", "cancel", "cancel_at_work", "retry", "list"),
)


def _happens(wait: Callable[[], Any]) -> bool:
    try:
        wait()
    except AssertionError:
        return False
    return True
