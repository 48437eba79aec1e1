"""What is in force can be seen, and where it comes from."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mqrouter.cli.common import Exit
from mqrouter.cli.config import command
from mqrouter.config import load
from mqrouter.settings import Settings
from mqrouter.starter import starter_dir

STARTER = str(starter_dir() / "mqrouter.toml")
UNUSUAL = """
[[listeners]]
filter = "a/+"
device_level = 1
answer = "b/{device}"
[mqtt]
password = { env = "BROKER_PASSWORD" }
[prompts]
"a.b" = "quotes \\" and \\\\, a tab\\t, \\u007f and ümläuts\\non two lines"
chat = ""
[routes."x.y"]
examples = ["hello"]
to = ["edge"]
"""


def show(*options: str) -> str:
    result = CliRunner().invoke(command, ["show", *options])
    assert result.exit_code == Exit.OK, result.output
    return result.stdout


@pytest.fixture
def unusual(tmp_path: Path) -> Path:
    path = tmp_path / "mqrouter.toml"
    path.write_text(UNUSUAL, encoding="utf-8")
    return path


def test_shown_settings_are_toml_that_says_the_same(unusual: Path) -> None:
    for file in (Path(STARTER), unusual):
        settings = load(file, {}).settings

        assert Settings.model_validate(tomllib.loads(show("-c", str(file)))) == settings
        assert Settings.model_validate(tomllib.loads(show("-c", str(file), "--origins"))) == settings


def test_key_that_is_not_set_is_shown_as_a_comment() -> None:
    assert "# mqtt.username is not set\n" in show("-c", STARTER)


def test_origins_name_file_and_variable(unusual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQROUTER_MQTT__HOST", "broker")
    lines = show("-c", str(unusual), "--origins").splitlines()

    assert 'mqtt.host = "broker"  # environment variable MQROUTER_MQTT__HOST' in lines
    assert "mqtt.port = 1883  # default" in lines
    assert f'prompts.chat = ""  # {unusual}:10:1' in lines


def test_json_is_the_settings(unusual: Path) -> None:
    shown = json.loads(show("-c", str(unusual), "--json"))

    assert shown == load(unusual, {}).settings.model_dump(mode="json")


def test_json_with_origins_has_both(unusual: Path) -> None:
    shown = json.loads(show("-c", str(unusual), "--json", "--origins"))

    assert shown["settings"]["mqtt"]["port"] == 1883
    assert shown["origins"]["listeners[0].filter"] == f"{unusual}:3:1"


def test_secret_is_shown_as_its_reference(unusual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2")
    shown = show("-c", str(unusual))

    assert 'mqtt.password = { "env" = "BROKER_PASSWORD" }' in shown
    assert "hunter2" not in shown


def test_broken_configuration_ends_with_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "mqrouter.toml"
    path.write_text("[mqtt]\nport = 0\n")
    result = CliRunner().invoke(command, ["show", "-c", str(path)])

    assert result.exit_code == Exit.CONFIG
    assert f"{path}:2:1: mqtt.port: must be at least 1, not 0" in result.stderr


def test_schema_describes_every_section() -> None:
    result = CliRunner().invoke(command, ["schema"])

    assert json.loads(result.stdout)["properties"].keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("words", [[], ["show"], ["schema"]])
def test_help_has_an_example(words: list[str]) -> None:
    assert "Example:\n    mqrouter config" in CliRunner().invoke(command, [*words, "--help"]).output
