"""A random sequence of actions on a request's whole life, on a real database and on a model without one."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.append(str(Path(__file__).parents[1] / "edge"))

from test_store_life import StoreLife

ACTIONS = 40


def test_fault_42_random_actions_leave_the_database_and_the_model_equal() -> None:
    run_state_machine_as_test(
        StoreLife, settings=settings(max_examples=30, stateful_step_count=ACTIONS, deadline=None, derandomize=True)
    )
