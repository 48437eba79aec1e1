from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mqrouter.cli.models import command
from mqrouter.models import store, survival
from mqrouter.models.catalogue import DEFAULTS, MINILM
from mqrouter.models.loading import LoadProfile
from mqrouter.models.survival import ProbeOutcome, Trial

GGUF = b"GGUF\x03\x00\x00\x00" + bytes(16) + b"weights" * 1000
SHA256 = hashlib.sha256(GGUF).hexdigest()
CONFIGURATION = """
[gateway]
models_dir = "elsewhere"
[prompts]
chat = "You help on a farm."
[routes.frost]
examples = ["Will it freeze?"]
to = ["edge"]
"""
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without a configuration, and models that all live: the probe has its own tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQROUTER_CONFIG", raising=False)
    trial = Trial(LoadProfile.NO_EXTRA_BUFTS, survived=True, detail="survived")
    outcome = ProbeOutcome(LoadProfile.NO_EXTRA_BUFTS, (trial,), 0.0)
    monkeypatch.setattr(survival, "find_profile", lambda *_, **__: outcome)
    return tmp_path


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, [*arguments, "--models-dir", "models"], env=env)


def pull_farm(folder: Path) -> Result:
    (folder / "m.gguf").write_bytes(GGUF)
    return run("pull", "farm", "--from", "m.gguf")


def test_pulled_file_is_listed_and_verified(folder: Path) -> None:
    pulled = pull_farm(folder)
    assert pulled.exit_code == 0
    assert f"farm: pulled, 0.0 MB, sha256 {SHA256}" in pulled.stdout
    assert "farm: runs with profile no-extra-bufts" in pulled.stdout
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert (rows["farm"]["state"], rows["farm"]["purpose"], rows["farm"]["sha256"]) == ("present", "chat", SHA256)
    assert rows[MINILM.name]["present"] is False
    assert run("verify", "farm").stdout == "farm: verified, runs with profile no-extra-bufts\n"


def test_present_model_is_not_fetched_again(folder: Path) -> None:
    pull_farm(folder)
    (folder / "m.gguf").unlink()
    assert "farm: present and verified" in run("pull", "farm").stdout


def test_list_names_every_catalogued_model_and_its_state() -> None:
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "PURPOSE", "SIZE", "LICENCE", "STATE"]
    assert any(line.split()[:2] == ["all-minilm-l6-v2", "embed"] and line.endswith("not pulled") for line in lines)


def test_damage_exits_1_and_names_the_remedy(folder: Path) -> None:
    pull_farm(folder)
    (folder / "models" / "farm.gguf").write_bytes(GGUF[:-1] + b"?")
    result = run("verify", "--json")
    assert result.exit_code == 1
    assert "run `mqrouter models pull farm --from" in result.stderr
    (finding,) = json.loads(result.stdout)
    assert (finding["state"], finding["name"]) == ("damaged", "farm")
    assert "was expected" in finding["error"]


def test_reprobe_forgets_the_outcome(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull_farm(folder)
    asked: list[bool] = []
    known = survival.find_profile

    def find(*arguments: object, forget: bool) -> ProbeOutcome:
        asked.append(forget)
        return known(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(survival, "find_profile", find)
    run("verify")
    run("verify", "--reprobe")
    assert asked == [False, True]


def test_removed_model_is_gone(folder: Path) -> None:
    pull_farm(folder)
    assert run("rm", "farm").exit_code == 0
    assert not (folder / "models" / "farm.gguf").exists()
    assert run("rm", "farm").exit_code == 3


@pytest.mark.parametrize("arguments", [("verify",), ("verify", MINILM.name), ("rm", "farm")])
def test_nothing_there_exits_3_and_names_the_command(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 3
    assert "mqrouter models pull" in result.stderr


def test_unreachable_index_exits_69_after_trying_every_default() -> None:
    result = run("pull", env=NO_INDEX)
    assert result.exit_code == 69
    assert result.stderr.count("cannot be fetched") == len(DEFAULTS)


def test_refused_download_exits_1_and_asks_for_the_hash() -> None:
    result = run("pull", "farm", "--from", "https://example.org/m.gguf")
    assert result.exit_code == 1
    assert "--sha256 HEX" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull", "--from", "m.gguf"),
        ("pull", "a", "b", "--sha256", SHA256),
        ("pull", "a", "--from", "m.gguf", "--sha256", "abc"),
        ("rm",),
    ],
)
def test_wrong_use_exits_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_folder_comes_from_the_configuration(folder: Path) -> None:
    (folder / "mq.toml").write_text(CONFIGURATION, encoding="utf-8")
    result = CliRunner().invoke(command, ["list", "-c", "mq.toml"])
    assert f"in {folder / 'elsewhere'}" in result.stderr


def test_broken_configuration_exits_78(folder: Path) -> None:
    (folder / "mq.toml").write_text("[gateway]\nmodel_dir = 3\n", encoding="utf-8")
    result = CliRunner().invoke(command, ["list", "-c", "mq.toml"])
    assert result.exit_code == 78
    assert "mq.toml:2" in result.stderr


def test_folder_without_a_configuration_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.config.PLACES", ())
    monkeypatch.setattr(store, "default_models_dir", lambda: folder / "default")
    assert f"in {folder / 'default'}" in CliRunner().invoke(command, ["list"]).stderr


@pytest.mark.parametrize("verb", ["list", "pull", "verify", "rm"])
def test_help_shows_examples(verb: str) -> None:
    assert "Example" in CliRunner().invoke(command, [verb, "--help"]).stdout


def test_list_imports_nothing_heavy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from mqrouter.cli.models import command;"
        "CliRunner().invoke(command, ['list', '--models-dir', 'models']);"
        "sys.exit(', '.join({'llama_cpp', 'numpy', 'rich', 'gguf', 'aiohttp', 'pydantic'} & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[2]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert time.monotonic() - started < 2.0  # 0.2 s here; the margin is for a busy machine
