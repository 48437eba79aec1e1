"""The training of a process of its own: what it says is handed on, and it never outlives who asked."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from fakes import until

from mqrouter.edge.trainer import Trainer, TrainingFailedError


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Trainer:
    """A trainer whose Python is a shell script."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return Trainer(tmp_path / "mqrouter.toml", tmp_path / "cache")


async def test_outcome_is_what_the_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f'echo "$@" > {tmp_path}/words; echo "{{\\"replaced\\": false, \\"why\\": \\"$XDG_CACHE_HOME\\"}}"'
    found = await stand_in(tmp_path, monkeypatch, body).retrain()
    assert found == {"replaced": False, "why": str(tmp_path / "cache")}
    words = (tmp_path / "words").read_text().split()
    assert words == ["-m", "mqrouter", "train", "--from-feedback", "--if-not-worse", "--json", "-c", words[-1]]


async def test_failure_carries_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingFailedError, match="ended with 78: no such model"):
        await stand_in(tmp_path, monkeypatch, "echo no such model >&2; exit 78").retrain()


async def test_cancelled_training_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    trainer = stand_in(
        tmp_path, monkeypatch, f"echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; exec sleep 60"
    )
    task = asyncio.create_task(trainer.retrain())
    await until(pid_file.exists)
    pid = int(pid_file.read_text())
    await until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 19)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
