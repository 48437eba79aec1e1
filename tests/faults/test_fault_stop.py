"""Stopped in order, or held up for longer than anybody waits for it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from harness import Site, running_site
from load import Load
from oracle import Oracle

pytestmark = pytest.mark.real_model

SEED = 38
STOP_LIMIT_S = 10.0
CONFIG = """
[limits]
device_rate_per_minute = 1000000
"""
IMPATIENT = """
[mqtt]
keepalive_s = 5

[tiers.hub]
total_timeout_s = 2.0
"""


def test_fault_38_stop_under_load_is_in_time_and_loses_nothing(tmp_path: Path) -> None:
    with running_site(tmp_path, text=CONFIG) as site, Oracle(site.broker, site.gateway) as oracle:
        with Load(oracle, SEED):
            oracle.wait_for_number(50)
            site.tier.hold()  # the attempts under way will not end
            site.tier.wait_for_calls("frost", len(site.tier.calls) + 1)
            stopped_s = time.monotonic()

            assert site.gateway.stop(STOP_LIMIT_S) == 0

            oracle.extra["stopped in s"] = round(time.monotonic() - stopped_s, 1)
            assert _status(site) == "offline"
            site.tier.release()
            site.gateway.start()
        oracle.wait_for_answers()
        oracle.judge()


def _status(site: Site) -> str:
    with site.requester() as watcher:
        watcher.subscribe("mqrouter/farm/status")
        message = watcher.answer_on("mqrouter/farm/status")
        assert message.is_retained
        return message.text


def test_fault_39_stopped_longer_than_every_limit_answers_once(tmp_path: Path) -> None:
    with running_site(tmp_path, text=IMPATIENT) as site, Oracle(site.broker, site.gateway) as oracle:
        oracle.wait_for_answers(oracle.ask(5))
        site.tier.hold()
        asked = oracle.ask(10)
        site.tier.wait_for_calls("frost", 5 + 4)  # as many as the tier takes at once
        site.gateway.log.send(signal.SIGSTOP)
        site.tier.release()  # its answers arrive while nobody listens
        site.broker.log.wait_for_line(lambda line: f"{oracle.client_id} has exceeded timeout" in line, 30)

        site.gateway.log.send(signal.SIGCONT)

        oracle.wait_for_answers(asked)
        oracle.ask()  # behind whatever else is on its way
        oracle.wait_for_answers()
        counts = oracle.judge()
        assert counts.answers == counts.sent
