"""What tools/failover prints, held: every fault of a tier ends in the right answer, within its deadline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from failover.__main__ import right_faults
from failover.drive import Outcome, run
from failover.faults import FAULTS, NAMES, Fault

pytestmark = pytest.mark.real_model

SLACK_S = 25.0
"""What a busy machine may add: here the outcome counts, and the number of calls."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return {one.fault.title: one for one in run(tmp_path_factory.mktemp("site"), slack_s=SLACK_S)}


def test_there_are_sixteen_faults() -> None:
    assert len(NAMES) == 16
    assert len({fault.title for fault in FAULTS}) == len(FAULTS)


def as_expected(fault: Fault, **other: Any) -> Outcome:
    return replace(Outcome(fault, tuple(fault.answered_by), 1.0, 2.0, fault.calls), **other)


def test_fault_is_right_only_where_all_of_it_is() -> None:
    good = [as_expected(fault) for fault in FAULTS]
    assert right_faults(good) == list(NAMES)
    for spoilt in ({"answered_by": ("expired",)}, {"elapsed_s": 2.1}, {"calls": 7}):
        outcomes = [
            as_expected(one.fault, **(spoilt if one.fault.title == "reset, during the stream, ollama" else {}))
            for one in good
        ]
        assert right_faults(outcomes) == [name for name in NAMES if name != "reset"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title)
def test_question_is_answered_in_spite_of(fault: Fault, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[fault.title]
    assert outcome.answered_by == tuple(fault.answered_by)
    assert outcome.calls == fault.calls
    assert outcome.is_right, outcome
