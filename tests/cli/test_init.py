"""Two commands to a working system: init is the first."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from mqrouter.cli.common import Exit
from mqrouter.cli.init import command
from mqrouter.config import load
from mqrouter.starter import starter_dir


def test_written_configuration_is_valid(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "new" / "conf")])

    assert result.exit_code == Exit.OK
    assert load(tmp_path / "new/conf/mqrouter.toml", {}).settings.routes


def test_every_starter_file_is_written(tmp_path: Path) -> None:
    CliRunner().invoke(command, [str(tmp_path)])

    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    starter = starter_dir()
    assert written == {path.relative_to(starter): path.read_bytes() for path in starter.rglob("*") if path.is_file()}
    assert {Path("mqrouter.toml"), Path("prompts.toml"), Path("routes/small_talk.toml")} <= written.keys()


def test_next_steps_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "my farm"
    result = CliRunner().invoke(command, [str(folder)])

    assert f"mqrouter check -c '{folder}/mqrouter.toml'" in result.stdout
    assert "mqrouter models pull" in result.stdout


def test_this_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, [])

    assert (tmp_path / "mqrouter.toml").is_file()
    assert "  3. mqrouter check\n" in result.stdout


def test_existing_file_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "prompts.toml").write_text("mine")
    result = CliRunner().invoke(command, [str(tmp_path)])

    assert result.exit_code == Exit.FAILED
    assert result.stderr.startswith(f"{tmp_path}/prompts.toml: exists already")
    assert (tmp_path / "prompts.toml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.toml"]


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "prompts.toml").write_text("mine")
    result = CliRunner().invoke(command, [str(tmp_path), "--force"])

    assert result.exit_code == Exit.OK
    assert "[prompts]" in (tmp_path / "prompts.toml").read_text()


def test_folder_that_cannot_be_made_is_a_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(command, [str(tmp_path / "file" / "conf")])

    assert result.exit_code == Exit.FAILED
    assert "cannot be written: Not a directory" in result.stderr
