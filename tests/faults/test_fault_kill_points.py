"""Killed at every place where accepting touches the disk: what was acknowledged is on it.

A daemon is started, traced, asked, and killed by its own system call; the next one goes on with the same database and
the same session at the broker. Two gateways share the work. Every different place is tried, and one in eight of those
that only come later; with --all-kill-points all 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Gateway, Mosquitto, poll, running_site
from oracle import Oracle, Sent
from tracing import inject_into, injecting

pytestmark = pytest.mark.real_model

POINTS = range(1, 201)
ONE_IN = 8
SYNCS_OF_A_START = 10  # more than there are
GATEWAYS = 2
TIER_NOBODY_HAS = "http://127.0.0.1:1/v1"
CONFIG = """
[gateway]
name = "{name}"

[mqtt]
receive_maximum = 1

[limits]
device_rate_per_minute = 1000000

[service]
drain_timeout_s = 1.0
"""
DIED_OF_SIGKILL = -9


def test_fault_01_killed_at_each_sync_keeps_what_it_acknowledged(tmp_path: Path, all_kill_points: bool) -> None:
    _kill_at_each("fdatasync", tmp_path, POINTS if all_kill_points else _thinned(after=20))


def test_fault_02_killed_at_each_write_keeps_what_it_acknowledged(tmp_path: Path, all_kill_points: bool) -> None:
    # A request's way, from its commit to that of its delivery, is about 45 writes.
    _kill_at_each("pwrite64", tmp_path, POINTS if all_kill_points else _thinned(after=48))


def test_fault_01_killed_at_each_sync_of_a_start_starts_again(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site, Oracle(site.broker, site.gateway) as oracle:
        for point in range(1, SYNCS_OF_A_START):
            site.gateway.launch(through=injecting("fdatasync", "signal=SIGKILL", point))
            if not _is_subscribed(site.gateway):
                oracle.extra["kills"] = point
                continue
            site.gateway.kill()
            break
        assert oracle.extra["kills"]
        site.gateway.start()
        oracle.ask(3)
        oracle.wait_for_answers()
        oracle.judge()


def _is_subscribed(gateway: Gateway) -> bool:
    """False where it died before."""

    def found() -> bool | None:
        return bool(gateway.events("mqtt.connected")) or (None if gateway.log.is_running else False)

    return poll(found, lambda: "neither connected nor dead")


def _thinned(*, after: int) -> list[int]:
    return [*POINTS[:after], *POINTS[after::ONE_IN]]


def _kill_at_each(call: str, folder: Path, points: Sequence[int]) -> None:
    broker = Mosquitto(folder / "broker", extra=["max_queued_messages 0"]).start()
    shares = {folder / f"farm{number}": points[number::GATEWAYS] for number in range(GATEWAYS)}
    try:
        with ThreadPoolExecutor(GATEWAYS) as pool:
            list(pool.map(lambda share: _run_share(broker, call, *share), shares.items()))
    finally:
        broker.kill()


def _run_share(broker: Mosquitto, call: str, folder: Path, points: Sequence[int]) -> None:
    gateway = Gateway(folder, broker.port, TIER_NOBODY_HAS, text=CONFIG.format(name=folder.name))
    try:
        with Oracle(broker, gateway.start()) as oracle:
            gateway.kill()
            for point in points:
                _die_at(point, call, gateway, oracle)
            gateway.start()
            oracle.wait_for_answers()
            oracle.extra["kills"] = len(points)
            oracle.judge()
            gateway.close()
    finally:
        if gateway.log.is_running:
            gateway.kill()


def _die_at(point: int, call: str, gateway: Gateway, oracle: Oracle) -> None:
    gateway.launch()
    gateway.wait_for_event("mqtt.connected")
    strace = inject_into(gateway.log.pid, call, "signal=SIGKILL", point)
    _ask_until_dead(oracle, gateway, at_once=1 + point // 4)
    assert gateway.log.wait() == DIED_OF_SIGKILL
    strace.wait()


def _ask_until_dead(oracle: Oracle, gateway: Gateway, *, at_once: int) -> None:
    """Questions for a route that does not exist: each is accepted, answered and delivered without any tier."""
    while gateway.log.is_running:
        asked = oracle.ask(at_once, form="json", route="nowhere")
        _wait_until_answered_or_dead(oracle, gateway, asked)


def _wait_until_answered_or_dead(oracle: Oracle, gateway: Gateway, asked: Sequence[Sent]) -> None:
    poll(lambda: oracle.has_answers(asked) or not gateway.log.is_running or None, lambda: f"no answer to {asked}")
