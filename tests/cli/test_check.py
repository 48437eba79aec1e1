"""check says everything that is wrong, changes nothing, and its exit code tells a script."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mqrouter.cli.check import command
from mqrouter.cli.common import Exit

VALID = """\
[tiers.edge]
kind = "local"
[routing.abstain]
to = ["edge"]
[prompts]
chat = "Be brief."
[routes.talk]
examples = ["hello"]
to = ["edge"]
[gateway]
models_dir = "models"
"""


@pytest.fixture(autouse=True)
def _in_folder_with_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mqrouter.models.catalogue import DEFAULTS, file_of

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQROUTER_CONFIG", raising=False)
    for name in DEFAULTS:
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / file_of(name)).write_bytes(b"GGUF")


def check(text: str, *options: str) -> Result:
    Path("mqrouter.toml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(command, [*options])


def test_valid_configuration_is_summed_up() -> None:
    result = check(VALID)

    assert result.exit_code == Exit.OK
    assert result.stdout.startswith("mqrouter.toml is valid: 1 file, 1 routes, tiers edge, topics below mqrouter/farm")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("folder", "why"),
    [("taken/data", "is a file"), ("taken", "is a file"), ("/proc/data", "cannot be made in /proc by this user")],
)
def test_data_dir_that_cannot_be_is_a_problem(folder: str, why: str) -> None:
    Path("taken").write_text("", encoding="utf-8")
    result = check(f'{VALID}data_dir = "{folder}"\n')
    assert result.exit_code == Exit.CONFIG
    assert result.stderr.startswith("mqrouter.toml:12:1: gateway.data_dir: ") and why in result.stderr


def test_data_dir_that_this_user_may_not_write_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    result = check(VALID)
    assert (result.exit_code, "data cannot be written by this user" in result.stderr) == (Exit.CONFIG, True)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nowhere/mq.log", "/nowhere: make it"),
        ("taken/mq.log", "taken is a file"),
        ("models", "models is a folder: name a file in it"),
        ("/proc/mq.log", "/proc cannot be written by this user"),
    ],
)
def test_log_file_that_cannot_be_is_a_problem(file: str, why: str) -> None:
    Path("taken").write_text("", encoding="utf-8")
    result = check(f'{VALID}[log]\nfile = "{file}"\n')
    assert result.exit_code == Exit.CONFIG, result
    assert result.stderr.startswith("mqrouter.toml:13:1: log.file: ") and why in result.stderr


def test_log_file_that_this_user_may_not_write_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("logs").mkdir()
    Path("logs/mq.log").write_text("", encoding="utf-8")
    text = f'{VALID}[log]\nfile = "logs/mq.log"\n'
    for forbidden in (Path("logs").absolute(), Path("logs/mq.log").absolute()):  # root may write everywhere
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode, no=forbidden: path != no)
            result = check(text)
        assert (result.exit_code, f"{forbidden} cannot be written by this user" in result.stderr) == (Exit.CONFIG, True)
    assert check(text).exit_code == Exit.OK


@pytest.mark.parametrize("file", ["mq.log", "/dev/null"])
def test_log_file_that_can_be_is_none(file: str) -> None:
    result = check(f'{VALID}[log]\nfile = "{file}"\n')
    assert (result.exit_code, result.stderr) == (Exit.OK, "")


def test_privacy_that_would_protect_nothing_is_a_problem() -> None:
    result = check(VALID + '[privacy]\ntopics = ["office/#/x"]\nregion = "UK"\ndetect = ["mail"]\n')
    assert result.exit_code == Exit.CONFIG
    for place, what in (("13:11", "# must be a level"), ("14:1", "no country UK"), ("15:11", 'did you mean "email"?')):
        assert any(f":{place}: " in line and what in line for line in result.stderr.splitlines()), result.stderr


def test_every_problem_is_one_line_of_stderr() -> None:
    result = check(VALID + '[mqtt]\nport = 0\nhots = "x"\n')

    assert result.exit_code == Exit.CONFIG
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "mqrouter.toml:13:1: mqtt.port: must be at least 1, not 0",
        'mqrouter.toml:14:1: mqtt.hots: unknown key; did you mean "host"?',
    ]


def test_option_names_the_file() -> None:
    Path("other.toml").write_text(VALID, encoding="utf-8")

    assert CliRunner().invoke(command, ["-c", "other.toml"]).stdout.startswith("other.toml is valid")


def test_missing_file_names_init() -> None:
    result = CliRunner().invoke(command, ["--config", "nowhere.toml"])

    assert result.exit_code == Exit.CONFIG
    assert "`mqrouter init`" in result.stderr


def test_missing_model_is_a_warning_that_names_the_remedy() -> None:
    for file in Path("models").iterdir():
        file.unlink()
    result = check(VALID)

    assert result.exit_code == Exit.OK
    assert result.stderr.count("mqrouter models pull") == 2
    assert result.stderr.startswith("warning: ")


def test_secret_that_leads_nowhere_is_a_warning_with_its_place() -> None:
    result = check(VALID + '[mqtt]\npassword = { env = "NOT_SET_ANYWHERE" }\n')

    assert result.exit_code == Exit.OK
    assert result.stderr == (
        "warning: mqrouter.toml:13:1: mqtt.password: the environment variable NOT_SET_ANYWHERE is not set; "
        "without it the daemon does not start\n"
    )


@pytest.mark.parametrize("content", ["", "\n", "changeme\n"])
def test_token_that_the_daemon_would_refuse_is_a_problem(tmp_path: Path, content: str) -> None:
    token = tmp_path / "operator.token"
    token.write_text(content)
    http = f'[http]\noperator_token = {{ file = "{token}" }}\n'

    result = check(VALID + http)

    assert result.exit_code == Exit.CONFIG
    said = "http.operator_token: a token has at least 16 characters: make one by chance"
    assert result.stderr == f"mqrouter.toml:13:1: {said}\n"
    assert check(VALID + http + "enabled = false\n").exit_code == Exit.OK


def test_secret_itself_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2")
    result = check(VALID + '[mqtt]\npassword = { env = "BROKER_PASSWORD" }\n', "--json")

    assert json.loads(result.stdout)["warnings"] == []
    assert "hunter2" not in result.output


def test_address_of_the_starter_is_a_warning() -> None:
    result = check(VALID + '[tiers.far]\nkind = "openai"\nurl = "http://far.example/v1"\nmodel = "m"\n')

    assert result.stderr.startswith("warning: mqrouter.toml:14:1: tiers.far.url: far.example is ")


def test_budget_needs_prices_to_count_by() -> None:
    result = check(VALID.replace("[routing.abstain]", "budget_per_day = 1.0\n[routing.abstain]"))

    assert result.exit_code == Exit.CONFIG
    assert "a budget needs prompt_price_per_million and completion_price_per_million: set both" in result.stderr


def test_json_carries_the_problems() -> None:
    result = check(VALID + "[mqtt]\nport = 0\n", "--json")

    assert result.exit_code == Exit.CONFIG
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [
            {
                "file": "mqrouter.toml",
                "line": 13,
                "column": 1,
                "key": "mqtt.port",
                "message": "must be at least 1, not 0",
            }
        ],
        "warnings": [],
    }


def test_json_carries_the_warnings() -> None:
    result = check(VALID + '[mqtt]\npassword = { file = "nowhere" }\n', "--json")

    found = json.loads(result.stdout)
    assert found["ok"]
    assert [warning["key"] for warning in found["warnings"]] == ["mqtt.password"]


def test_checking_changes_nothing() -> None:
    before = {Path("mqrouter.toml"), *Path().rglob("*")}
    check(VALID)

    assert set(Path().rglob("*")) == before


LEARNED = VALID.replace("[routing.abstain]", '[routing]\nstrategy = "learned"\n[routing.abstain]')


def test_learned_without_a_head_is_a_problem_with_its_place_and_remedy() -> None:
    result = check(LEARNED)

    assert result.exit_code == Exit.CONFIG
    (line,) = result.stderr.splitlines()
    assert line.startswith('mqrouter.toml:4:1: routing.strategy: "learned" needs a trained head: there is no ')
    assert line.endswith("head.npz yet: run `mqrouter train`")


def test_head_that_does_not_fit_is_a_problem_of_whoever_names_it() -> None:
    Path("data").mkdir()
    Path("data/head.npz").write_bytes(b"damaged")
    listener = '[[listeners]]\nfilter = "a/+"\ndevice_level = 1\nanswer = "b/{device}"\nstrategy = "cascade"\n'
    result = check(VALID + listener, "--json")

    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["key"], problem["line"]) == ("listeners[0].strategy", 16)
    assert "train anew with `mqrouter train`" in problem["message"]


def test_head_is_not_missed_while_there_is_no_embedder_to_train_with() -> None:
    for file in Path("models").iterdir():
        file.unlink()

    assert check(LEARNED).exit_code == Exit.OK


def test_cascade_can_do_without_a_head() -> None:
    assert check(LEARNED.replace("learned", "cascade")).exit_code == Exit.OK


@pytest.mark.parametrize(
    ("routing", "key", "message"),
    [
        ("min_gain = 0.1", "routing.min_gain", 'it has no effect: no strategy is "hybrid" or "learned"'),
        ('strategy = "hybrid"\nmin_gain = 0.1', "routing.min_gain", "run `mqrouter train --outcomes FILE`"),
        ("[routing.auto_tune]\nenabled = true", "routing.auto_tune.enabled", 'no strategy is "cascade" or "learned"'),
    ],
)
def test_what_has_no_effect_is_a_warning(routing: str, key: str, message: str) -> None:
    section = routing if routing.startswith("[") else f"[routing]\n{routing}"
    result = check(VALID.replace("[routing.abstain]", f"{section}\n[routing.abstain]"))

    assert result.exit_code == Exit.OK
    assert any(key in line and message in line for line in result.stderr.splitlines()), result.stderr


def test_damaged_head_that_nobody_needs_is_a_warning() -> None:
    Path("data").mkdir()
    Path("data/head.npz").write_bytes(b"damaged")
    result = check(VALID)

    assert result.exit_code == Exit.OK
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: ") and "head.npz: " in line and "train anew with `mqrouter train`" in line


def test_learning_that_is_not_set_up_is_no_warning() -> None:
    assert check(VALID).stderr == ""


def test_traces_without_what_they_need_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(VALID + "[traces]\nenabled = true\n").exit_code == Exit.OK
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    result = check(VALID + "[traces]\nenabled = true\n")

    assert result.exit_code == Exit.CONFIG
    assert "mqrouter.toml:13:1: traces.enabled: needs the extra otel: pip install 'mqrouter[otel]'" in result.stderr
    assert check(VALID).exit_code == Exit.OK
