"""Killed at random and at chosen moments: what was accepted is answered, once, in its own words."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from harness import Site, poll, running_site
from load import Load
from oracle import Oracle, Sent
from tracing import RECEIVES, SENDS, inject_into_socket

from mqrouter.core.states import State

pytestmark = pytest.mark.real_model

SEED = 20_240_229
KILLS = 30
DIED_OF_SIGKILL = -signal.SIGKILL
CONFIG = """
[limits]
device_rate_per_minute = 1000000
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, text=CONFIG) as site:
        yield site


@pytest.fixture
def oracle(site: Site) -> Iterator[Oracle]:
    with Oracle(site.broker, site.gateway) as oracle:
        yield oracle


def test_fault_03_killed_at_random_under_load_loses_nothing(site: Site, oracle: Oracle) -> None:
    random = Random(SEED)
    moment = threading.Event()  # never set: the kills come at times that nothing of the daemon decides
    restarts_s = []
    with Load(oracle, SEED) as load:
        for number in range(KILLS):
            moment.wait(random.uniform(0.0, 0.3))
            site.gateway.kill()
            started_s = time.monotonic()
            site.gateway.launch()
            if number % 3:  # each third one dies again while it starts
                site.gateway.wait_for_event("daemon.ready")
                restarts_s.append(time.monotonic() - started_s)
    site.gateway.wait_for_event("daemon.ready")
    oracle.wait_for_answers()
    oracle.extra |= {
        "kills": KILLS,
        "repeated": load.repeated,
        "restart median s": round(statistics.median(restarts_s), 2),
        "slowest s": round(max(restarts_s), 2),
    }
    oracle.judge()


def test_fault_04_killed_between_commit_and_puback_answers_once(site: Site, oracle: Oracle) -> None:
    nameless = Sent(
        0, f"{oracle.prefix}/ask/nameless", "frost, no name?", f"{oracle.prefix}/answer/nameless", None, True
    )
    inject_into_socket(site.gateway.log.pid, site.broker.port, SENDS, "signal=SIGKILL")
    oracle.note(nameless)
    oracle.asker(4).publish(nameless.topic, nameless.text)
    assert site.gateway.log.wait() == DIED_OF_SIGKILL
    stored = {row.topic for row in oracle.ledger().rows}
    assert stored == {nameless.topic} and not oracle.log().acknowledged

    site.gateway.start()

    oracle.wait_for_answers()
    counts = oracle.judge()
    assert (counts.rows, counts.acknowledged, counts.answers) == (1, 1, 1)
    assert len(site.tier.calls) == 1


def test_fault_05_killed_between_the_answers_commit_and_its_publish_sends_it(site: Site, oracle: Oracle) -> None:
    site.tier.hold()
    [question] = oracle.ask()
    site.tier.wait_for_calls(question.text)
    inject_into_socket(site.gateway.log.pid, site.broker.port, SENDS, "signal=SIGKILL")
    site.tier.release()
    assert site.gateway.log.wait() == DIED_OF_SIGKILL
    [row] = oracle.ledger().rows
    assert row.state is State.ANSWERED and question.reply_topic not in oracle.log().published

    site.gateway.start()

    oracle.wait_for_answers()
    counts = oracle.judge()
    assert (counts.answers, len(site.tier.calls)) == (1, 1)


def test_fault_06_killed_between_publish_and_its_puback_sends_it_again(site: Site, oracle: Oracle) -> None:
    site.tier.hold()
    [question] = oracle.ask()
    site.tier.wait_for_calls(question.text)
    inject_into_socket(site.gateway.log.pid, site.broker.port, RECEIVES, "signal=SIGKILL")
    site.tier.release()
    assert site.gateway.log.wait() == DIED_OF_SIGKILL
    oracle.wait_for_answers()
    [row] = oracle.ledger().rows
    assert row.state is State.ANSWERED

    site.gateway.start()

    site.gateway.wait_for_request(state="delivered")
    counts = oracle.judge()
    assert (counts.answers, counts.duplicates) == (2, 1)
    assert oracle.log().published.count(question.reply_topic) == 2
    assert len(site.tier.calls) == 1


def test_fault_07_killed_during_an_upstream_call_asks_again_under_the_same_key(site: Site, oracle: Oracle) -> None:
    site.tier.hold()
    [question] = oracle.ask(form="json")
    [first] = site.tier.wait_for_calls(question.text)
    site.gateway.kill()
    site.tier.release()

    site.gateway.start()

    oracle.wait_for_answers()
    counts = oracle.judge()
    assert counts.answers == 1
    assert [call.key for call in site.tier.calls] == [first.key, first.key]
    assert first.key == oracle.ledger().rows[0].id


def _listening_after(site: Site) -> None:
    poll(lambda: site.gateway.status()["ready"] or None, lambda: "not ready")
