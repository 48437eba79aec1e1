"""A question that kills the daemon each time it is handled ends there; those in hand beside it do not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Behaviour, Call, Site, running_site
from oracle import Oracle, Sent

from mqrouter.core.states import State

pytestmark = pytest.mark.real_model

DEATHS = 3
DIED_OF_SIGKILL = -signal.SIGKILL
WORD = "cyanide"
FOLDERS = [str(Path(__file__).with_name("poison")), os.environ.get("PYTHONPATH", "")]
POISONED = {"POISON": WORD, "PYTHONPATH": os.pathsep.join(filter(None, FOLDERS))}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as site:
        yield site


@pytest.fixture
def oracle(site: Site) -> Iterator[Oracle]:
    with Oracle(site.broker, site.gateway) as oracle:
        yield oracle


def test_fault_08_question_that_kills_at_a_tier_ends_alone(site: Site, oracle: Oracle) -> None:
    def answer_or_kill(call: Call) -> Behaviour:
        if WORD in call.question:
            os.kill(site.gateway.log.pid, signal.SIGKILL)
        return Behaviour()

    site.tier.script = answer_or_kill
    site.tier.hold()
    [poison] = oracle.ask(text=f"frost, and {WORD}?")
    site.tier.wait_for_calls(WORD)  # it is the first to be answered
    for innocent in oracle.ask(3):
        site.tier.wait_for_calls(innocent.text)

    for death in range(1, DEATHS + 1):
        site.tier.wait_for_calls(WORD, death)
        site.tier.release()
        assert site.gateway.log.wait() == DIED_OF_SIGKILL
        site.tier.hold()
        site.gateway.launch()
    site.tier.release()

    _judge(oracle, poison)
    assert len(site.tier.asked(WORD)) == DEATHS


def test_fault_08_question_that_kills_while_it_is_classified_ends_alone(site: Site, oracle: Oracle) -> None:
    site.gateway.kill()
    [poison] = oracle.ask(text=f"frost, and {WORD}?")
    oracle.ask(3)
    for _ in range(DEATHS):
        site.gateway.launch(POISONED)
        assert site.gateway.log.wait() == DIED_OF_SIGKILL

    site.gateway.launch(POISONED)

    _judge(oracle, poison)


def _judge(oracle: Oracle, poison: Sent) -> None:
    """All but the poison are answered in their words, and so is whatever comes after it."""
    oracle.ask(3)
    oracle.wait_for_answers()
    oracle.extra["deaths"] = DEATHS
    oracle.judge()
    [answer] = oracle.answers_to(poison)
    assert answer.error_code == "internal"
    assert [row.topic for row in oracle.ledger().rows if row.state is State.DEAD] == [poison.topic]
    assert [row.topic for row in oracle.ledger().rows if row.reason is not None] == [poison.topic]
