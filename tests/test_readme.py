"""The README holds what it says: commands exist, codes are the codes, examples load, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from mqrouter.cli.main import COMMANDS, cli
from mqrouter.errors import ErrorCode
from mqrouter.routing.signals import Embedding, Signals
from mqrouter.routing.strategy import RouteExamples
from mqrouter.settings import OllamaTier, Route

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _shell_lines() -> Iterator[str]:
    for block in _blocks("sh"):
        for line in block.splitlines():
            yield from (part.strip() for part in line.split("#")[0].split("&&"))


MQROUTER_LINES = [line for line in _shell_lines() if line.startswith("mqrouter ")]


@pytest.mark.parametrize("line", MQROUTER_LINES)
def test_command_of_the_readme_parses(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no {line}"
        command, words = found, words[1:]
    command.make_context(command.name, words, resilient_parsing=False).close()


def test_readme_shows_every_verb_once() -> None:
    shown = {shlex.split(line)[1] for line in MQROUTER_LINES}
    assert set(COMMANDS) - shown <= {"config"}


def test_error_codes_are_the_table() -> None:
    table = {
        code for row in re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)
    }
    assert table >= set(ErrorCode)


def test_example_configuration_loads() -> None:
    (text,) = _blocks("toml")
    table = tomllib.loads(text)
    assert OllamaTier.model_validate(table["tiers"]["hub"]).model
    assert Route.model_validate(table["routes"]["crop_disease"]).to == ["hub", "regional"]


def test_example_strategy_is_whole() -> None:
    """It is run as it stands: its imports are there, and it scores."""
    _, strategy = _blocks("python")
    assert '"loudness": "mqrouter.routing.loudness:Loudness"' in README
    names: dict[str, Any] = {}
    exec(compile(strategy, "loudness.py", "exec"), names)
    routes = {name: RouteExamples((), np.zeros((0, 2), np.float32), 0.3, ()) for name in ("loud", "quiet")}
    embedding = Embedding(np.zeros(2, np.float32), 1, is_cut=False)
    signals = Signals(4, 1, embedding, is_private=False, asked_route=None, text="HELP")
    assert names["Loudness"](routes, nearest=1).score(signals).ranked[0].score == 1.0


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("tool", sorted(set(re.findall(r"tools/\w+", README))))
def test_tool_of_the_readme_is_there_and_runs_its_own_set_up(tool: str) -> None:
    assert "tools/environment" in (ROOT / tool).read_text(encoding="utf-8")


def test_named_modules_exist() -> None:
    for folder, name in re.findall(r"`(\w+)/(\w+)\.py`", README):
        assert (ROOT / "mqrouter" / folder / f"{name}.py").exists()
