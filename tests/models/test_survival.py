"""The children here are real processes, and those that are to die really die."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from model_fixtures import write_gguf

from mqrouter.errors import ModelFileError
from mqrouter.models import survival
from mqrouter.models.catalogue import MINILM, SMOLLM2, CatalogueEntry, Purpose
from mqrouter.models.loading import LoadProfile
from mqrouter.models.store import default_models_dir, resolve
from mqrouter.models.survival import ChildResult, ProbeOutcome, Runner, find_profile, run_child

DIE = "import os, signal; os.kill(os.getpid(), signal.{})"
SEGFAULT = DIE.format("SIGSEGV")
HANG = "import signal; signal.pause()"
REFUSE = "import sys; print('first'); sys.exit('no such tensor')"
LIVE = ""


class Children:
    """Runs one line of Python in place of each profile's child."""

    def __init__(self, *programs: str, limit_s: float = 20.0) -> None:
        self.programs = list(programs)
        self.limit_s = limit_s
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], _limit_s: float) -> ChildResult:
        self.commands.append(command)
        program = self.programs[len(self.commands) - 1]
        return run_child([sys.executable, "-S", "-c", program], self.limit_s)


Find = Callable[[Runner], ProbeOutcome]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def find(model: Path, tmp_path: Path) -> Find:
    return lambda runner: find_profile(
        model, Purpose.EMBED, tmp_path / survival.MEMORY_FILE, runner=runner, now=lambda: 1000.0
    )


def test_model_that_lives_gets_the_fastest_profile(find: Find) -> None:
    outcome = find(Children(LIVE))
    assert outcome.profile is LoadProfile.DEFAULT
    assert str(outcome) == "runs with profile default"


def test_crash_selects_the_next_safer_profile(find: Find) -> None:
    children = Children(SEGFAULT, LIVE)
    outcome = find(children)
    assert outcome.profile is LoadProfile.NO_EXTRA_BUFTS
    assert [trial.signal for trial in outcome.trials] == [11, None]
    assert str(outcome) == "runs with profile no-extra-bufts (default: died of SIGSEGV)"
    assert [command[4] for command in children.commands] == ["default", "no-extra-bufts"]


def test_remembered_outcome_starts_no_child(find: Find) -> None:
    first = find(Children(SEGFAULT, LIVE))
    second = find(Children())
    assert second.was_remembered
    assert (second.profile, second.trials, second.at) == (first.profile, first.trials, 1000.0)


def test_hanging_child_is_killed_and_passed_over(find: Find) -> None:
    outcome = find(Children(HANG, LIVE, limit_s=0.3))
    assert outcome.profile is LoadProfile.NO_EXTRA_BUFTS
    assert "no answer within" in outcome.trials[0].detail


def test_ctrl_c_meant_for_the_parent_does_not_reach_the_child() -> None:
    leads_a_session = "import os, sys; sys.exit(os.getsid(0) != os.getpid())"
    assert run_child([sys.executable, "-S", "-c", leads_a_session], 20.0).returncode == 0


def test_no_survivor_is_told_with_every_fate(find: Find, model: Path) -> None:
    with pytest.raises(ModelFileError) as error:
        find(Children(SEGFAULT, DIE.format("SIGABRT"), REFUSE))
    assert str(model) in str(error.value)
    for fate in ("died of SIGSEGV", "died of SIGABRT", "ended with status 1: no such tensor", "models verify"):
        assert fate in str(error.value)


def test_kill_from_outside_is_not_remembered(find: Find) -> None:
    assert find(Children(DIE.format("SIGKILL"), LIVE)).profile is LoadProfile.NO_EXTRA_BUFTS
    outcome = find(Children(LIVE))
    assert (outcome.profile, outcome.was_remembered) == (LoadProfile.DEFAULT, False)


def test_another_file_is_probed_anew(find: Find, model: Path) -> None:
    find(Children(SEGFAULT, LIVE))
    model.write_bytes(model.read_bytes() + b"\0")
    assert not find(Children(LIVE)).was_remembered


def test_another_machine_is_probed_anew(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    find(Children(SEGFAULT, LIVE))
    monkeypatch.setattr(survival, "machine_fingerprint", lambda: "another")
    assert not find(Children(LIVE)).was_remembered


def test_reprobe_forgets(find: Find, model: Path, tmp_path: Path) -> None:
    find(Children(SEGFAULT, LIVE))
    memory = tmp_path / survival.MEMORY_FILE
    outcome = find_profile(model, Purpose.EMBED, memory, runner=Children(LIVE), forget=True)
    assert outcome.profile is LoadProfile.DEFAULT
    assert survival.recall(model, Purpose.EMBED, memory) is not None


@pytest.mark.parametrize("torn", ["", "{", '{"outcomes": []}', '{"outcomes": {"x": 1}}'])
def test_torn_memory_costs_a_probe_only(find: Find, tmp_path: Path, torn: str) -> None:
    (tmp_path / survival.MEMORY_FILE).write_text(torn, encoding="utf-8")
    assert find(Children(LIVE)).profile is LoadProfile.DEFAULT
    assert find(Children()).was_remembered


def test_memory_that_cannot_be_written_costs_a_probe_only(model: Path, tmp_path: Path) -> None:
    memory = tmp_path / "missing" / survival.MEMORY_FILE
    assert find_profile(model, Purpose.EMBED, memory, runner=Children(LIVE)).profile is LoadProfile.DEFAULT


def test_memory_is_bounded(find: Find, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for machine in range(survival.MAX_REMEMBERED + 3):
        monkeypatch.setattr(survival, "machine_fingerprint", lambda machine=machine: str(machine))
        find(lambda *_: ChildResult(0))
    assert len(survival._outcomes(tmp_path / survival.MEMORY_FILE)) == survival.MAX_REMEMBERED


def test_real_child_loads_and_embeds(model: Path, tmp_path: Path) -> None:
    outcome = find_profile(model, Purpose.EMBED, tmp_path / survival.MEMORY_FILE)
    assert outcome.profile is LoadProfile.DEFAULT


def test_real_child_explains_a_damaged_file(model: Path, tmp_path: Path) -> None:
    model.write_bytes(model.read_bytes()[:-10_000])
    with pytest.raises(ModelFileError, match=r"default: ended with status 1: .*cannot load it"):
        find_profile(model, Purpose.EMBED, tmp_path / survival.MEMORY_FILE)


@pytest.mark.real_model
@pytest.mark.parametrize("entry", [MINILM, SMOLLM2], ids=lambda entry: entry.name)
def test_default_models_run_here(entry: CatalogueEntry, tmp_path: Path) -> None:
    path = resolve(entry.name, default_models_dir()).path
    assert find_profile(path, entry.purpose, tmp_path / survival.MEMORY_FILE).trials[-1].survived
