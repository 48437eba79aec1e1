"""The queue's commands as operators use them: what waits and why, routes held back, drops undone, a look repeated."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import MQROUTER, Gateway, Site, poll, running_site

pytestmark = pytest.mark.real_model

ASK = "mqrouter/farm/ask"
FROST, URGENT = "will there be frost tonight?", "stop the irrigation pump right now"


def listed(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gateway.cli("queue", "list", "--json", *options).stdout)
    return rows


def ask(site: Site, device: str, text: str) -> dict[str, Any]:
    """Returns the row once it is decided."""
    with site.requester() as requester:
        requester.publish(f"{ASK}/{device}", text)
    return site.gateway.wait_for_request(device=device, state="pending")


def test_paused_route_waits_whatever_its_when_offline_also_after_a_kill(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, site.requester() as device:
        gateway = site.gateway
        device.subscribe("mqrouter/farm/answer/#")
        assert gateway.cli("queue", "pause", "--route", "urgent").stdout == "paused route urgent\n"
        unknown = gateway.cli("queue", "pause", "--route", "moon")
        assert (unknown.returncode, "there are frost, urgent" in unknown.stderr) == (2, True), unknown
        site.tier.stop()
        held = ask(site, "pump", URGENT)
        gateway.kill()
        gateway.start()
        assert gateway.status()["paused_routes"]["urgent"]["paused_by"]
        (row,) = listed(gateway)
        assert row["waits_because"].startswith("route urgent is paused by "), row
        site.tier.start()
        device.publish(f"{ASK}/trees", FROST)
        assert device.answer_on("mqrouter/farm/answer/trees").text == f"echo: {FROST}"
        assert site.tier.asked(URGENT) == []
        assert "route urgent" in gateway.cli("status").stdout
        assert gateway.cli("queue", "resume", "--route", "urgent").stdout == "resumed route urgent\n"
        assert device.answer_on("mqrouter/farm/answer/pump").text == f"echo: {URGENT}"
        assert gateway.wait_for_request(id=held["id"], state="delivered")["detail"] is None


def test_resume_names_what_it_let_go_on_and_nothing_else(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        cli = site.gateway.cli
        nothing = cli("queue", "resume")
        assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "nothing was paused\n")
        cli("queue", "pause", "hub")
        cli("queue", "pause", "--route", "urgent")
        mixed = cli("queue", "resume", "hub", "--route", "frost")
        assert (mixed.returncode, mixed.stdout, mixed.stderr) == (0, "resumed hub\n", "route frost was not paused\n")
        rest = cli("queue", "resume")
        assert (rest.returncode, rest.stdout, rest.stderr) == (0, "resumed route urgent\n", "")
        unknown = cli("queue", "resume", "--route", "moon")
        assert (unknown.returncode, "there are frost, urgent" in unknown.stderr) == (2, True), unknown
        actions = json.loads(cli("queue", "actions", "--json").stdout)
        assert [row["target"] for row in actions if row["action"] == "resume"] == ["route urgent", "hub"]
        site.gateway.stop()
        assert cli("queue", "resume").returncode == 69


def test_what_waits_says_why_while_the_daemon_runs_and_when_it_is_down(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        gateway = site.gateway
        site.tier.stop()
        row = ask(site, "trees", FROST)
        gateway.wait_for_event("tier.breaker_changed", new="open")
        assert listed(gateway)[0]["waits_because"].startswith("hub is down (")
        assert "waits:    hub is down (" in gateway.cli("queue", "show", row["id"]).stdout
        second = ask(site, "more", FROST)  # it came while the tier was down already, and never failed
        assert "hub is down" in gateway.cli("queue", "list", "--device", "more").stdout
        gateway.cli("queue", "pause", "hub")
        gateway.stop()
        found = gateway.cli("queue", "show", second["id"])
        assert "waits:    hub is paused by " in found.stdout
        assert "what was known last" in found.stderr


def test_drop_is_undone_by_command(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, site.requester() as device:
        gateway = site.gateway
        device.subscribe("mqrouter/farm/answer/#")
        gateway.cli("queue", "pause")
        row = ask(site, "trees", FROST)
        dropped = gateway.cli("queue", "drop", row["id"])
        assert (dropped.stdout, "queue undo" in dropped.stderr) == (
            f"{row['id']} is dropped (it was pending)\n",
            True,
        ), dropped
        assert listed(gateway) == []
        assert [found["id"] for found in listed(gateway, "--state", "dropped")] == [row["id"]]
        gateway.cli("queue", "resume")
        assert gateway.cli("queue", "undo", row["id"]).returncode == 0
        assert device.answer_on("mqrouter/farm/answer/trees").text == f"echo: {FROST}"
        assert gateway.cli("db", "check").returncode == 0


def test_name_that_is_nobodys_is_said(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        result = site.gateway.cli("queue", "list", "--route", "frots")
        assert (result.returncode, result.stderr) == (3, "there is no route frots; did you mean frost?\n")
        result = site.gateway.cli("queue", "list", "--tier", "moon", "--json")
        assert (json.loads(result.stdout), "there is no tier moon; there are" in result.stderr) == ([], True)
        for verb in ("list", "retry"):
            result = site.gateway.cli("queue", verb, "--error", "Connection refused")
            assert (result.returncode, "--tier NAME finds it" in result.stderr) == (3, True)


def test_watch_draws_again_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        gateway = site.gateway
        refused = gateway.cli("queue", "list", "--watch")
        assert (refused.returncode, "this is none" in refused.stderr) == (2, True)
        gateway.cli("queue", "pause")
        master, slave = pty.openpty()
        environment = os.environ | {"MQROUTER_CONFIG": str(gateway.config), "COLUMNS": "200", "LINES": "40"}
        command = [MQROUTER, "queue", "list", "--watch", "0.2"]
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as watching:
            os.close(slave)
            os.set_blocking(master, False)
            seen = bytearray()
            read_until(master, seen, b"nothing waits")
            row = ask(site, "trees", FROST)
            read_until(master, seen, row["id"].encode())
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20.0) == 0
        os.close(master)


def read_until(master: int, seen: bytearray, wanted: bytes) -> None:
    def found() -> bool | None:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(master, 65536))
        return wanted in seen or None

    poll(found, lambda: f"{wanted!r} in {bytes(seen[-500:])!r}", 20.0)
