"""What operators do while requests flow and while they wait: nothing is lost by it, and all of it is on record."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from subprocess import DEVNULL
from typing import Any

import pytest
from harness import MQROUTER, Gateway, poll, running_site
from load import Load
from oracle import Oracle

pytestmark = pytest.mark.real_model

SEED = 41
CONFIG = """
[limits]
device_rate_per_minute = 1000000
[retry]
backoff_min_s = 30.0
backoff_max_s = 60.0
[tiers.hub]
concurrency = 2
"""


def test_fault_41_operators_steer_under_load_and_through_an_outage(tmp_path: Path) -> None:
    random = Random(SEED)
    with running_site(tmp_path, text=CONFIG) as site, Oracle(site.broker, site.gateway) as oracle:
        gateway = site.gateway
        with Load(oracle, SEED):
            oracle.wait_for_number(20)
            assert said(gateway, "pause") == ["paused hub"]  # under load
            waiting = listed(gateway, "pending", at_least=20)
            assert gateway.status()["tiers"]["hub"]["paused_by"]
        calls = len(site.tier.calls)
        dropped = [row["id"] for row in random.sample(waiting, 5)]
        for request_id in dropped:
            assert said(gateway, "cancel", request_id)[0].startswith(f"{request_id} is cancelled")
        gateway.kill()
        gateway.start()
        assert gateway.status()["tiers"]["hub"]["paused_by"], "a restart must not resume what an operator paused"
        assert len(site.tier.calls) == calls, "a paused tier was asked"

        site.tier.stop()  # the outage
        assert said(gateway, "resume", "hub") == ["resumed hub"]
        gateway.wait_for_event("tier.breaker_changed", new="open")
        still = listed(gateway, "pending", at_least=10)
        assert not {row["id"] for row in still} & set(dropped)
        retried = [row["id"] for row in random.sample(still, 3)]
        for request_id in retried:
            assert said(gateway, "retry", request_id)[0].startswith(request_id)
        site.tier.start()
        oracle.wait_for_answers(timeout_s=60.0)

        for request_id in dropped:
            assert shown(gateway, request_id)["reason"] == "cancelled"
        recorded = [
            (row["action"], row["target"]) for row in json.loads(gateway.cli("queue", "actions", "--json").stdout)
        ]
        wanted = [("pause", "hub"), *(("cancel", name) for name in dropped), ("resume", "hub")]
        assert recorded[::-1] == [*wanted, *(("retry", name) for name in retried)]
        oracle.extra |= {"cancelled": len(dropped), "retried": len(retried)}
        oracle.judge()


def test_fault_41_kill_amid_drops_leaves_each_request_dropped_or_waiting(tmp_path: Path) -> None:
    """The drops can be undone after the restart; what nobody brings back ends explained as well."""
    with running_site(tmp_path, text=CONFIG) as site, Oracle(site.broker, site.gateway) as oracle:
        gateway = site.gateway
        said(gateway, "pause", "hub")
        said(gateway, "pause", "--route", "frost")
        oracle.ask(40)
        waiting = {row["id"] for row in listed(gateway, "pending", at_least=40)}
        oracle.ask(1, expiry_s=20)
        (late,) = {row["id"] for row in listed(gateway, "pending", at_least=41)} - waiting
        gateway.cli("queue", "drop", late)

        environment = {**os.environ, "MQROUTER_CONFIG": str(gateway.config)}
        dropping = [
            subprocess.Popen([MQROUTER, "queue", "drop", name], env=environment, stdout=DEVNULL, stderr=DEVNULL)
            for name in sorted(waiting)[:6]
        ]
        listed(gateway, "dropped", at_least=2)
        gateway.kill()
        for process in dropping:
            process.wait(30.0)
        gateway.start()
        dropped = {row["id"] for row in listed(gateway, "dropped", at_least=1)} - {late}
        still = {row["id"] for row in listed(gateway, "pending", at_least=1)}
        assert (dropped | still, dropped & still) == (waiting, set())

        gateway.wait_for_request(id=late, reason="expired", timeout_s=60.0)  # nobody brings it back
        assert site.tier.calls == [], "what waits for a paused tier was asked"
        said(gateway, "resume")
        said(gateway, "undo", "--all", "--yes")
        oracle.wait_for_answers(timeout_s=60.0)
        oracle.extra |= {"dropped": len(dropped), "expired": 1}
        oracle.judge()


def test_fault_41_what_came_too_late_changes_nothing(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Oracle(site.broker, site.gateway) as oracle:
        (sent,) = oracle.ask()
        oracle.wait_for_answers()
        row = site.gateway.wait_for_request(state="delivered")
        for verb, what in (("cancel", "nothing to cancel"), ("retry", "nothing to retry")):
            result = site.gateway.cli("queue", verb, row["id"])
            assert (result.returncode, what in result.stderr) == (1, True), result
        assert site.gateway.cli("queue", "pause", "moon").returncode == 2
        assert site.gateway.cli("queue", "actions").returncode == 3
        assert len(oracle.answers_to(sent)) == 1
        oracle.judge()


def said(gateway: Gateway, *arguments: str) -> Sequence[str]:
    result = gateway.cli("queue", *arguments)
    assert result.returncode == 0, result
    return result.stdout.splitlines()


def listed(gateway: Gateway, state: str, *, at_least: int) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]] | None:
        rows: list[dict[str, Any]] = json.loads(gateway.cli("queue", "list", "--state", state, "--json").stdout)
        return rows if len(rows) >= at_least else None

    return poll(found, lambda: f"{at_least} {state}")


def shown(gateway: Gateway, request_id: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(gateway.cli("queue", "show", request_id, "--json").stdout)
    return row
