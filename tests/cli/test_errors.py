"""Whatever goes wrong on the command line is told in one form, click's own findings too."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mqrouter.bench.questions import QuestionsError, read_questions
from mqrouter.cli.main import cli


@pytest.mark.parametrize(
    ("arguments", "code", "last_line"),
    [
        (["nothing"], 2, "mqrouter: No such command 'nothing'."),
        (["status", "--nothing"], 2, "mqrouter: No such option"),
        (["queue", "list", "--state", "odd"], 2, "mqrouter: Invalid value for --state: odd; states are received"),
        (
            ["eval", "questions", "nowhere.jsonl"],
            1,
            "mqrouter: nowhere.jsonl: cannot be read: No such file",
        ),
        (["bench", "--questions", "nowhere"], 1, "mqrouter: nowhere: cannot be read: No such file or directory"),
        (["models", "verify", "nothing"], 3, "mqrouter: "),
    ],
)
def test_error_begins_with_the_name_of_the_program(
    arguments: list[str], code: int, last_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.splitlines()[-1].startswith(last_line), result.stderr


def test_wrong_usage_is_shown_with_the_right_one() -> None:
    result = CliRunner().invoke(cli, ["feedback", "id"], prog_name="mqrouter")
    usage, hint, *_ = result.stderr.splitlines()
    assert usage.startswith("Usage: mqrouter feedback [OPTIONS] ID") and hint == "Try `mqrouter feedback --help`."


def test_help_and_version_end_well() -> None:
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
    assert CliRunner().invoke(cli, ["queue", "list", "--help"]).exit_code == 0
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("mqrouter, version ")


def test_interrupted_question_is_told_in_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_more: object) -> None:
        raise click.Abort

    monkeypatch.setattr(click.Group, "invoke", interrupted)
    result = CliRunner().invoke(cli, ["status"])
    assert (result.exit_code, result.stderr) == (1, "mqrouter: aborted\n")


def test_questions_that_are_not_there_are_not_called_badly_written(tmp_path: Path) -> None:
    with pytest.raises(QuestionsError, match="cannot be read: No such file"):
        read_questions(tmp_path / "none.jsonl")
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"is the k\xfche well?")
    with pytest.raises(QuestionsError, match="byte 8 is not UTF-8"):
        read_questions(latin)
