"""A minute of everything at once, on every run of the suite; `-m "not soak"` leaves them out."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from oracle import Oracle, Sent
from soaking.broker_story import BrokerStory
from soaking.faults import ACTIONS
from soaking.questions import Traffic
from soaking.replies import SCRIPTS
from soaking.report import Report
from soaking.schedule import ENDS, KINDS, steps
from soaking.soak import run

MINUTES = 1.0
SEED = int(os.environ.get("MQROUTER_SOAK_SEED", "3"))


@pytest.mark.soak
@pytest.mark.real_model
def test_random_load_and_random_faults_together_break_no_promise(tmp_path: Path) -> None:
    found = run(tmp_path, MINUTES, SEED, lambda _: None)
    assert found.is_ok, found.as_text()


def test_schedule_is_the_same_for_the_same_seed_and_no_other() -> None:
    first, again, other = (list(islice(steps(seed), 500)) for seed in (1, 1, 2))
    assert first == again != other


def test_schedule_undoes_what_lasts_and_knows_every_action() -> None:
    names = {step.name for step in islice(steps(1), 2000)}
    assert names == {kind.name for kind in KINDS} | ENDS
    assert names == set(ACTIONS) | set(SCRIPTS)


@dataclass
class Paper:
    """An oracle that only writes down what is published."""

    prefix: str = "farm"
    rc: int = 0
    published: list[tuple[str, bytes, bytes | None, int | None, int]] = field(default_factory=list)

    def note(self, _sent: Sent) -> None:
        pass

    def asker(self, _version: int) -> Paper:
        return self

    def send(self, topic: str, payload: bytes, **how: Any) -> Paper:
        self.published.append((topic, payload, how["correlation"], how["expiry_s"], how["qos"]))
        return self


def test_questions_are_the_same_for_the_same_seed_and_no_other() -> None:
    papers = [Paper(), Paper(), Paper()]
    for paper, seed in zip(papers, (1, 1, 2), strict=True):
        traffic = Traffic(cast(Oracle, paper), seed)
        for _ in range(500):
            traffic.act()
    first, again, other = (paper.published for paper in papers)
    assert first == again != other


def report(*offences: str) -> Report:
    numbers = dict.fromkeys(("sent", "acknowledged", "rows", "answers", "duplicates", "absorbed", "kills", "starts"), 1)
    names = ("asked", "ended", "faults", "left_out", "lost_by_broker", "connections")
    counts = {name: Counter(kill=2) for name in names}
    lengths = dict.fromkeys(("longest_start_s", "peak_mb", "grown_mb"), 1.5)
    values: dict[str, Any] = {**numbers, **counts, **lengths, "offences": offences, "histories": ["moved"]}
    return Report(minutes=0.5, seed=7, broker_losses=[], **values)


def test_report_names_the_offenders_and_how_to_see_them_again() -> None:
    text = report("a was lost").as_text()
    assert "a was lost" in text and "moved" in text
    assert text.endswith("again: tools/soak --minutes 0.5 --seed 7")
    assert "again" not in report().as_text()
    told = json.loads(report("a was lost").as_json())
    assert (told["ok"], told["offences"], told["faults"]) == (False, ["a was lost"], {"kill": 2})
    assert json.loads(report().as_json())["ok"]


@dataclass
class Life:
    lines: list[str]


DAEMON_CAME = ["1: Sending CONNACK to mqrouter-farm (0, 0)", "1: Received SUBSCRIBE from mqrouter-farm"]
ASKED = [
    "2: Received PUBLISH from asker (d0, q1, r0, m7, 'ask/a', ... (6 bytes))",
    "2: Sending PUBACK to asker (m7, rc0)",
]
PASSED_ON = "2: Sending PUBLISH to mqrouter-farm (d0, q1, r0, m1, 'ask/a', ... (6 bytes))"
ACKNOWLEDGED = "2: Received PUBACK from mqrouter-farm (Mid: 1, RC:0)"
ANSWERED = [
    "3: Received PUBLISH from mqrouter-farm (d0, q1, r0, m2, 'answer/a', ... (6 bytes))",
    "3: Sending PUBLISH to oracle/1 (d0, q1, r0, m3, 'answer/a', ... (6 bytes))",
    "3: Sending PUBACK to mqrouter-farm (m2, rc0)",
]
HEARD = "3: Received PUBACK from oracle/1 (Mid: 3, RC:0)"


def story(*lives: list[str], killed: tuple[int, ...] = (0,)) -> BrokerStory:
    found = BrokerStory("mqrouter-farm", "oracle/")
    return found.read([Life(lines) for lines in lives], killed)


def test_killed_broker_lost_only_what_was_with_it_alone() -> None:
    assert story([*DAEMON_CAME, *ASKED, PASSED_ON]).lost_questions == {"ask/a"}
    whole = story([*DAEMON_CAME, *ASKED, PASSED_ON, ACKNOWLEDGED, *ANSWERED])
    assert (whole.taken, whole.lost_questions, whole.lost_answers) == ({"ask/a"}, set(), {"answer/a": 1})
    assert not story([*DAEMON_CAME, *ANSWERED, HEARD]).lost_answers
    assert not story([*DAEMON_CAME, *ASKED, PASSED_ON], killed=()).lost_questions


def test_question_to_a_broker_that_forgot_the_daemon_may_be_lost() -> None:
    assert story(DAEMON_CAME, [*ASKED, *DAEMON_CAME]).lost_questions == {"ask/a"}
    known = ["3: Sending CONNACK to mqrouter-farm (1, 0)", *DAEMON_CAME[1:]]
    assert not story(DAEMON_CAME, [*ASKED, *known]).lost_questions


def test_acknowledgement_of_what_this_broker_never_sent_is_found() -> None:
    assert not story([*DAEMON_CAME, *ASKED, PASSED_ON, ACKNOWLEDGED], killed=()).strays
    assert story([*DAEMON_CAME, *ASKED, PASSED_ON], [*DAEMON_CAME, ACKNOWLEDGED]).strays
