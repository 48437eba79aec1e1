"""`tools/demo`, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parents[2] / "tools" / "demo"
KEYS = ["question", "route", "tier", "model", "state_history", "answer", "latency_ms"]
RUN_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60

pytestmark = pytest.mark.real_model


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEMO, *arguments], capture_output=True, text=True, timeout=RUN_TIMEOUT_S)


def test_three_questions_are_answered_one_of_them_through_an_outage() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(outcome) for outcome in outcomes] == [KEYS] * 3
    assert [outcome["tier"] for outcome in outcomes] == ["edge", "hub", "hub"]
    assert all(outcome["answer"] and outcome["latency_ms"] > 0 for outcome in outcomes)
    # Pending before its tier was tried, and once more after nobody was there.
    assert " ".join(outcomes[2]["state_history"]) == "received pending leased pending leased answered delivered"
    row = next(line for line in done.stderr.splitlines() if " pending " in line and "crop_disease" in line)
    assert "hub" in row, "the queue was shown while the question waited"
    assert "\x1b" not in done.stderr, "no control codes off a terminal"


def test_ctrl_c_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as temporary, started(temporary) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()  # the first question is answered: everything runs
        processes = psutil.Process(demo.pid).children(recursive=True)
        assert {"broker", "hub", "daemon", "worker"} <= roles(processes)

        os.killpg(demo.pid, signal.SIGINT)

        assert demo.wait(STOP_TIMEOUT_S) == 128 + signal.SIGINT
        assert [process for process in processes if process.is_running()] == []
        assert list(Path(temporary).iterdir()) == []


def test_dead_broker_is_named_with_its_log() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as temporary, started(temporary) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        processes = psutil.Process(demo.pid).children(recursive=True)
        next(process for process in processes if role(process) == "broker").kill()

        _, errors = demo.communicate(timeout=STOP_TIMEOUT_S)

        assert demo.returncode == 1
        assert "the broker ended unasked, with status -9" in errors
        assert [process for process in processes if process.is_running()] == []


def test_unknown_option_is_refused_before_anything_is_set_up() -> None:
    done = run("--jsno")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--jsno" in done.stderr


@contextmanager
def started(temporary: str) -> Iterator[subprocess.Popen[str]]:
    """The demo runs in a process group of its own, as a terminal would start it."""
    environment = os.environ | {"TMPDIR": temporary}
    with subprocess.Popen(
        [DEMO, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()
            for survivor in (process for process in psutil.process_iter() if is_below(process, temporary)):
                survivor.kill()


def is_below(process: psutil.Process, temporary: str) -> bool:
    try:
        return process.environ().get("TMPDIR") == temporary
    except psutil.Error:
        return False


def roles(processes: list[psutil.Process]) -> set[str | None]:
    return {role(process) for process in processes}


def role(process: psutil.Process) -> str | None:
    line = " ".join(process.cmdline())
    marks = {"broker.py": "broker", "hub.py": "hub", "mqrouter run": "daemon", "chat_worker": "worker"}
    return next((name for mark, name in marks.items() if mark in line), None)
