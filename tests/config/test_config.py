"""A configuration is either wholly right, or every problem in it is named with its place."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mqrouter.config import Loaded, Origin, find_config, load
from mqrouter.config.keys import dotted, leaves, section_at, value_at
from mqrouter.config.toml_positions import KeyPath
from mqrouter.errors import ConfigError
from mqrouter.settings import LocalTier, OpenAiTier, Secret, Settings
from mqrouter.starter import starter_dir

MAIN = Path("mqrouter.toml")
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
"""


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "mqrouter.toml") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def loaded(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    write(text)
    return load(MAIN, environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Returns the problems of a main file that says `text`."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ)
    return [str(problem) for problem in caught.value.problems]


def test_smallest_configuration_is_valid() -> None:
    settings = loaded(VALID).settings

    assert list(settings.routes) == ["talk"]
    assert settings.mqtt == Settings().mqtt


# What a key may be


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("host = 7", "host: must be text in quotes, not 7"),
        ('host = ""', "host: must not be empty"),
        ('port = "1883"', 'port: must be a whole number, not the text "1883"'),
        ("port = 1883.5", "port: must be a whole number, not 1883.5"),
        ("port = true", "port: must be a whole number, not true"),
        ("port = 70000", "port: must be at most 65535, not 70000"),
        ("keepalive_s = 4", "keepalive_s: must be at least 5, not 4"),
        ("connect_timeout_s = 0", "connect_timeout_s: must be greater than 0, not 0"),
        ("connect_timeout_s = inf", "connect_timeout_s: must be a finite number, not inf"),
        ('connect_timeout_s = "1"', 'connect_timeout_s: must be a number, not the text "1"'),
        ("client_id = 1979-05-27", "client_id: must be text in quotes, not a date or time"),
        ('response_topics = "#"', 'response_topics: must be an array [ … ], not the text "#"'),
        ("tls = 1", "tls: must be a table, not 1"),
        ("tls.enabled = 1", "tls.enabled: must be true or false, not 1"),
        ('protocol = "4"', 'protocol: must be "auto", "5" or "3.1.1", not the text "4"'),
        ('hots = "a"', 'hots: unknown key; did you mean "host"?'),
        ("reconnect_min_s = 99", "reconnect_min_s must not exceed reconnect_max_s"),
    ],
)
def test_wrong_value_is_named_in_plain_words(line: str, problem: str) -> None:
    found = problems(f"{VALID}[mqtt]\n{line}\n")

    assert len(found) == 1
    assert found[0].startswith("mqrouter.toml:1")
    assert found[0].endswith(problem)


@pytest.mark.parametrize(
    ("tier", "problem"),
    [
        ('model = "m"', '2:8: tiers.hub.kind: is required: "local", "openai" or "ollama"'),
        (
            'kind = "opnai"',
            '3:1: tiers.hub.kind: must be "local", "openai" or "ollama", not the text "opnai"; did you mean "openai"?',
        ),
        (
            'kind = "openai"\nmodel = "m"',
            "2:8: tiers.hub.url: is required (base address, with /v1 where the server has it)",
        ),
        (
            'kind = "openai"\nmodel = "m"\nurl = "ftp://x"',
            "5:1: tiers.hub.url: must be an address that begins with http:// or https://, without spaces, "
            'not the text "ftp://x"',
        ),
        (
            'kind = "openai"\nmodel = "m"\nurl = "http://x"\nmax_token = 5',
            '6:1: tiers.hub.max_token: unknown key; did you mean "max_tokens"?',
        ),
        (
            'kind = "local"\nurl = "http://x"',
            '4:1: tiers.hub.url: unknown key; only tiers of kind "openai" or "ollama" have it, this one is "local"',
        ),
        ('kind = "local"\nconcurrency = 2', "4:1: tiers.hub.concurrency: must be 1, not 2"),
        (
            'kind = "openai"\nurl = "http://x"\nmodel = "m"\nkeep_alive_s = 60',
            '6:1: tiers.hub.keep_alive_s: unknown key; only tiers of kind "ollama" have it, this one is "openai"',
        ),
        (
            'kind = "ollama"\nurl = "http://x/v1"\nmodel = "m"',
            '2:8: tiers.hub: url is the address before /api; for /v1 there is kind = "openai"',
        ),
        (
            'kind = "ollama"\nurl = "http://x"\nmodel = "m"\nkeep_alive_s = 300\nkeep_warm_s = 300',
            "2:8: tiers.hub: keep_warm_s must be below keep_alive_s: the model would be gone in between",
        ),
        (
            'kind = "ollama"\nurl = "http://x"\nmodel = "m"\nkeep_warm_hours = "06:00-20:00"',
            "2:8: tiers.hub: keep_warm_hours needs keep_warm_s",
        ),
        (
            'kind = "openai"\nurl = "http://x"\nmodel = "m"\nkeep_warm_s = 60\nkeep_warm_hours = "6-20"',
            '7:1: tiers.hub.keep_warm_hours: must be two times of day like "06:00-20:00", not the text "6-20"',
        ),
    ],
)
def test_tier_problems_name_the_key_without_the_union(tier: str, problem: str) -> None:
    text = f"# a line above\n[tiers.hub]\n{tier}\n"

    assert problems(text + VALID) == [f"mqrouter.toml:{problem}"]


def test_bad_name_is_reported_at_the_name() -> None:
    assert problems(VALID + '[routes."a b"]\nexamples = ["x"]\nto = ["edge"]\n') == [
        'mqrouter.toml:10:9: routes."a b": the name must start with a letter or digit and hold only letters, '
        'digits, "_", "." and "-", not the text "a b"'
    ]


def test_suggestion_is_a_key_that_is_still_free() -> None:
    found = problems(VALID + "[mqtt]\nreconnect_min_s = 1\nreconnect_mix_s = 2\n")

    assert found == ['mqrouter.toml:12:1: mqtt.reconnect_mix_s: unknown key; did you mean "reconnect_max_s"?']


def test_unknown_table_suggests_the_near_one() -> None:
    assert problems(VALID + "[gatway]\n") == ['mqrouter.toml:10:2: gatway: unknown table; did you mean "gateway"?']


def test_secret_written_in_the_open_is_refused_and_not_repeated() -> None:
    found = problems(VALID + '[mqtt]\npassword = "hunter2"\n')

    assert found == [
        "mqrouter.toml:11:1: mqtt.password: must be a reference to the secret: "
        '{ env = "NAME" }, { file = "PATH" } or { credential = "NAME" }'
    ]


def test_secret_needs_exactly_one_reference() -> None:
    found = problems(VALID + '[mqtt]\npassword = { env = "A", file = "b" }\n')

    assert found == [
        'mqrouter.toml:11:1: mqtt.password: give exactly one of env, file, credential, as { env = "NAME" }'
    ]


# Files


def test_missing_main_file_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"^mqrouter.toml: no such file; `mqrouter init` writes"):
        load(MAIN, {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[mqtt]\nhost = \n", "mqrouter.toml:2:8: not TOML: Invalid value"),
        (b"[mqtt]\nhosts = [1,\n", "mqrouter.toml:3:1: not TOML: Invalid value"),
        (b"[mqtt]\n# gr\xfc\xdfe\n", "mqrouter.toml:2:5: is not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_unreadable_text_is_a_problem_with_its_place(content: bytes, problem: str) -> None:
    MAIN.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(MAIN, {})
    assert [str(found) for found in caught.value.problems] == [problem]


def test_folder_in_place_of_a_file_is_a_problem() -> None:
    MAIN.mkdir()

    with pytest.raises(ConfigError, match=r"^mqrouter.toml: cannot be read: Is a directory"):
        load(MAIN, {})


def test_file_with_byte_order_mark_loads() -> None:
    MAIN.write_bytes(VALID.encode("utf-8-sig"))

    assert load(MAIN, {}).settings.prompts == {"chat": "Be brief."}


def test_included_files_are_merged_in_sorted_order() -> None:
    write('[routes.b]\nexamples = ["b"]\nto = ["edge"]\n', "routes/b.toml")
    write('[routes.a]\nexamples = ["a"]\nto = ["edge"]\n', "routes/a.toml")
    result = loaded('include = ["routes/*.toml", "*.toml"]\n' + VALID)

    assert result.files == (MAIN, Path("routes/a.toml"), Path("routes/b.toml"))
    assert list(result.settings.routes) == ["talk", "a", "b"]


def test_include_is_relative_to_the_main_file() -> None:
    write('include = ["more.toml"]\n' + VALID, "elsewhere/mqrouter.toml")
    write('[mqtt]\nhost = "broker"\n', "elsewhere/more.toml")

    assert load(Path("elsewhere/mqrouter.toml"), {}).settings.mqtt.host == "broker"


def test_pattern_passes_over_folders_and_the_main_file() -> None:
    Path("routes").mkdir()
    pattern = Path.cwd() / "*"

    assert loaded(f'include = ["*", "{pattern}"]\n{VALID}').files == (MAIN,)


def test_named_include_has_to_exist() -> None:
    assert problems('include = ["more.toml"]\n' + VALID) == ['mqrouter.toml:1:1: include: there is no file "more.toml"']


def test_default_include_may_match_nothing() -> None:
    assert loaded(VALID).files == (MAIN,)


@pytest.mark.parametrize("pattern", ["", "/", "a**/x"])
def test_impossible_pattern_is_a_problem(pattern: str) -> None:
    assert problems(f'include = ["{pattern}"]\n{VALID}')[0].startswith("mqrouter.toml:1:1: include: ")


def test_included_file_includes_no_other() -> None:
    write('include = ["x.toml"]\n', "prompts.toml")

    assert problems(VALID) == ["prompts.toml:1:1: include: is for the main file only (mqrouter.toml)"]


def test_key_set_in_two_files_names_both_places() -> None:
    write('[prompts]\n\nchat = "Again."\n', "prompts.toml")

    assert problems(VALID) == [
        "prompts.toml:3:1: prompts.chat: is already set in mqrouter.toml:6:1; keep one of the two"
    ]


def test_two_files_may_share_a_table() -> None:
    write('[prompts]\nother = "Again."\n', "prompts.toml")

    assert set(loaded(VALID).settings.prompts) == {"chat", "other"}


def test_table_and_value_of_the_same_key_collide() -> None:
    write("prompts = 1\n", "prompts.toml")

    assert problems(VALID) == ["prompts.toml:1:1: prompts: is already set in mqrouter.toml:5:2; keep one of the two"]


def test_broken_file_hides_no_problem_of_another() -> None:
    write("[routes.x\n", "routes/x.toml")
    write("[log]\nlevel = 5\n", "prompts.toml")
    found = problems(VALID.replace('["edge"]', '["elsewhere"]') + "[mqtt]\nport = 0\n")

    assert [line.split(":")[:2] for line in found] == [
        ["mqrouter.toml", "11"],
        ["prompts.toml", "2"],
        ["routes/x.toml", "1"],
    ]


def test_name_that_may_stand_in_a_broken_file_is_not_missed() -> None:
    write("[routes.x\n", "routes/x.toml")

    assert len(problems('[mqtt]\nhost = "broker"\n')) == 1


def test_broken_key_hides_no_problem_of_its_table() -> None:
    found = problems(VALID + '[mqtt]\nport = 0\nprefix = "a/#"\n')

    assert [line.split(" ")[1] for line in found] == ["mqtt.port:", "mqtt.prefix:"]


@pytest.mark.parametrize(
    ("table", "wanted"),
    [("tiers", "a table"), ("prompts", "a table"), ("routes", "a table"), ("listeners", "an array [ … ]")],
)
def test_table_that_is_none_is_the_only_problem(table: str, wanted: str) -> None:
    name = f"MQROUTER_{table.upper()}"

    assert problems(VALID, {name: "1"}) == [f"environment: {name}: must be {wanted}, not 1"]


def test_default_in_place_of_a_broken_key_is_not_blamed() -> None:
    assert len(problems(VALID.replace('to = ["edge"]\n[prompts]', "to = 1\n[prompts]"))) == 1


# Between keys


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '\nto = ["edge"]\n[pr',
            '\nto = ["egde"]\n[pr',
            '4:7: routing.abstain.to[0]: there is no tier "egde"; did you mean "edge"?',
        ),
        (
            '"hello"]\nto = ["edge"]',
            '"hello"]\nto = ["edge", "hub"]',
            '9:15: routes.talk.to[1]: there is no tier "hub"; known: "edge"',
        ),
        (
            '["hello"]',
            '["hello"]\nprompt = "chatt"',
            '9:1: routes.talk.prompt: there is no prompt "chatt"; did you mean "chat"?',
        ),
        (
            "[prompts]\nchat",
            "[prompts]\ntalk",
            '3:10: routing.abstain.prompt: there is no prompt "chat"; known: "talk" (this is the default: set the key)',
        ),
        (
            "[routing.abstain]",
            '[routing]\nstrategy = "semantc"\n[routing.abstain]',
            '4:1: routing.strategy: there is no strategy "semantc"; did you mean "semantic"?',
        ),
        (
            "[routing.abstain]",
            '[[listeners]]\nfilter = "a/+"\ndevice_level = 1\nanswer = "b"\nstrategy = "knnn"\n[routing.abstain]',
            '7:1: listeners[0].strategy: there is no strategy "knnn"; did you mean "knn"?',
        ),
    ],
)
def test_name_that_leads_nowhere_is_a_problem(old: str, new: str, problem: str) -> None:
    assert old in VALID
    assert problems(VALID.replace(old, new)) == [f"mqrouter.toml:{problem}"]


def test_other_strategies_can_be_given() -> None:
    write(VALID + '[routing]\nstrategy = "dice"\n')

    assert load(MAIN, {}, strategies={"dice"}).settings.routing.strategy == "dice"


def test_default_strategy_is_registered() -> None:
    registry = pytest.importorskip("mqrouter.routing.registry")

    assert Settings().routing.strategy in registry.strategy_names()


def test_configuration_without_routes_is_a_problem() -> None:
    found = problems(VALID[: VALID.index("[routes")])

    assert found == [
        "mqrouter.toml: routes: there are none; add a [routes.NAME] table with examples, or include a file"
    ]


@pytest.mark.parametrize("when_offline", ["answer_locally", "answer_then_refine"])
def test_answering_locally_needs_a_local_tier(when_offline: str) -> None:
    text = VALID.replace('kind = "local"', 'kind = "openai"\nurl = "http://x"\nmodel = "m"')
    found = problems(text + f'when_offline = "{when_offline}"\n')

    needs = 'needs a tier of kind "local", and there is none'
    default = f'"answer_locally" {needs} (this is the default: set the key)'
    assert found == [
        f"mqrouter.toml:5:10: routing.abstain.when_offline: {default}",
        f'mqrouter.toml:12:1: routes.talk.when_offline: "{when_offline}" {needs}',
    ]


def test_example_of_two_routes_names_both() -> None:
    found = problems(VALID + '[routes.greet]\nexamples = ["Good day", "  HELLO "]\nto = ["edge"]\n')

    assert found == [
        'mqrouter.toml:11:25: routes.greet.examples[1]: is an example of the route "talk" too; keep it in one '
        "(mqrouter.toml:8:13)"
    ]


def test_example_twice_in_one_route_is_harmless() -> None:
    assert loaded(VALID.replace('["hello"]', '["hello", "Hello"]'))


@pytest.mark.parametrize(
    ("prefix", "word"),
    [
        ("a/+", "no +"),
        ("#", "no #"),
        ("$SYS/x", "$"),
        ("a/", "/"),
        ("/a", "/"),
        ("mq//x", "//"),
        ("{gatway}", "{gatway}"),
        ("a\\u0000", "NUL"),
    ],
)
def test_prefix_that_is_no_plain_topic_is_a_problem(prefix: str, word: str) -> None:
    (found,) = problems(f'{VALID}[mqtt]\nprefix = "{prefix}"\n')

    assert found.startswith("mqrouter.toml:11:1: mqtt.prefix: ")
    assert word in found


def test_discovery_prefix_must_be_a_topic() -> None:
    (found,) = problems(f"{VALID}[mqtt.home_assistant]\nprefix = 'home/#'\n")
    assert "mqtt.home_assistant.prefix" in found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('upsteam = "debug"', "nothing logs under upsteam; log.levels may name auto_tune, "),
        (
            'upstream = "loud"',
            'log.levels.upstream: must be "debug", "info", "warning" or "error", not the text "loud"',
        ),
    ],
)
def test_level_of_a_component_has_to_mean_something(line: str, problem: str) -> None:
    (found,) = problems(f"{VALID}[log.levels]\n{line}\n")
    assert problem in found


def test_response_topics_must_be_filters() -> None:
    (found,) = problems(VALID + '[mqtt]\nresponse_topics = ["a/+", "a/#/b"]\n')

    assert found.startswith("mqrouter.toml:11:27: mqtt.response_topics[1]: ")


def listener(topic_filter: str, level: int, answer: str) -> str:
    return f'{VALID}[[listeners]]\nfilter = "{topic_filter}"\ndevice_level = {level}\nanswer = "{answer}"\n'


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a/b#", "a+/b", "+a/b", "a\\u0000", "$share/group/a/+"])
def test_invalid_listener_filter_is_a_problem(topic_filter: str) -> None:
    (found,) = problems(listener(topic_filter, 0, "x/{device}"))

    assert found.startswith("mqrouter.toml:11:1: listeners[0].filter: ")


@pytest.mark.parametrize(("topic_filter", "level"), [("a/+/b", 2), ("a/b", 0), ("+/a", 0), ("a/#", 1), ("/+", 1)])
def test_valid_listener_loads(topic_filter: str, level: int) -> None:
    assert loaded(listener(topic_filter, level, "x/{device}/y")).settings.listeners[0].filter == topic_filter


def test_device_level_lies_inside_the_filter() -> None:
    assert problems(listener("a/+/b", 3, "x/{device}")) == [
        "mqrouter.toml:12:1: listeners[0].device_level: the filter has 3 levels, counted from 0: must be at most 2"
    ]


@pytest.mark.parametrize(
    ("topic_filter", "answer"),
    [
        ("a/+/q", "a/{device}/q"),
        ("a/#", "a/{device}"),
        ("#", "x"),
        ("a/+/q", "{device}/b/q"),
        ("a/kitchen/q", "a/{device}/q"),
        ("a/kitchen-1/q", "a/kitchen-{device}/q"),
        ("a/b/+", "a/b"),  # an answer with an id has one more level
        ("x/+", "{prefix}/ask/{device}"),
    ],
)
def test_answer_that_would_be_a_question_is_a_problem(topic_filter: str, answer: str) -> None:
    found = problems(listener(topic_filter, 0, answer))

    assert found[-1].startswith("mqrouter.toml:13:1: listeners[0].answer: an answer ")


@pytest.mark.parametrize(
    ("topic_filter", "answer"),
    [
        ("a/+/q", "a/{device}/answer"),
        ("a/kitchen/q", "b/{device}/q"),
        ("a/kitchen-1/q", "a/cellar-{device}/q"),
        ("a/kitchen-1/q", "a/{device}-2/q"),
        ("a/x/q", "a/x{device}x/q"),
        ("a/+/q", "{prefix}/answer/{device}"),
    ],
)
def test_answer_apart_from_questions_loads(topic_filter: str, answer: str) -> None:
    assert loaded(listener(topic_filter, 0, answer)).settings.listeners[0].answer == answer


@pytest.mark.parametrize("answer", ["a/+", "a/#", "$a", "{devise}/x"])
def test_answer_that_is_no_topic_is_a_problem(answer: str) -> None:
    (found,) = problems(listener("q/+", 1, answer))

    assert found.startswith("mqrouter.toml:13:1: listeners[0].answer: ")


def test_answer_may_not_match_the_filter_of_another_listener() -> None:
    text = listener("a/+", 1, "b/{device}") + '[[listeners]]\nfilter = "b/+"\ndevice_level = 1\nanswer = "c"\n'
    (found,) = problems(text)

    assert found.startswith("mqrouter.toml:13:1: listeners[0].answer: ")
    assert found.endswith('"b/+" (mqrouter.toml:15:1)')


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_certificate_authority_of_a_tier_has_to_exist(kind: str) -> None:
    tier = f'[tiers.hub]\nkind = "{kind}"\nurl = "https://x"\nmodel = "m"\nca_file = "nowhere.crt"\n'

    assert problems(tier + VALID) == [
        f"mqrouter.toml:5:1: tiers.hub.ca_file: there is no file {Path.cwd() / 'nowhere.crt'}"
    ]


def test_tls_files_have_to_exist() -> None:
    Path("there.key").touch()
    found = problems(VALID + '[mqtt.tls]\ncert_file = "nowhere.crt"\nkey_file = "there.key"\n')

    assert found == [f"mqrouter.toml:11:1: mqtt.tls.cert_file: there is no file {Path.cwd() / 'nowhere.crt'}"]


# The environment


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("MQROUTER_MQTT__HOST", "broker.lan", ("mqtt", "host"), "broker.lan"),
        ("MQROUTER_MQTT__PORT", "8883", ("mqtt", "port"), 8883),
        ("MQROUTER_MQTT__PROTOCOL", "5", ("mqtt", "protocol"), "5"),
        ("MQROUTER_GATEWAY__NAME", "7", ("gateway", "name"), "7"),
        ("MQROUTER_MQTT__USERNAME", "1.5", ("mqtt", "username"), "1.5"),
        ("MQROUTER_MQTT__TLS__ENABLED", "true", ("mqtt", "tls", "enabled"), True),
        ("MQROUTER_MQTT__RESPONSE_TOPICS", '["a/#"]', ("mqtt", "response_topics"), ["a/#"]),
        ("MQROUTER_TIERS__EDGE__MAX_TOKENS", "9", ("tiers", "edge", "max_tokens"), 9),
        ("MQROUTER_PROMPTS__CHAT", "Be kind.", ("prompts", "chat"), "Be kind."),
        ("MQROUTER_PROMPTS__CHAT", '"Be"\nkind = 1', ("prompts", "chat"), '"Be"\nkind = 1'),
        ("MQROUTER_LIMITS", "{ max_json_depth = 3 }", ("limits", "max_json_depth"), 3),
    ],
)
def test_variable_overrides_the_file(name: str, text: str, path: KeyPath, value: object) -> None:
    result = loaded(VALID, {name: text})

    assert value_at(result.settings.model_dump(mode="json"), path) == value
    assert result.origins[path] == Origin(variable=name)


def test_variable_finds_names_with_dashes() -> None:
    text = VALID + '[tiers.Field-Office]\nkind = "local"\n'

    assert (
        loaded(text, {"MQROUTER_TIERS__FIELD_OFFICE__MAX_TOKENS": "9"}).settings.tiers["Field-Office"].max_tokens == 9
    )


def test_variable_changes_a_default_tier_and_leaves_the_rest() -> None:
    text = VALID.replace('[tiers.edge]\nkind = "local"\n', "")
    tiers = loaded(text, {"MQROUTER_TIERS__HUB__MODEL": "qwen"}).settings.tiers

    assert tiers["hub"] == Settings().tiers["hub"].model_copy(update={"model": "qwen"})
    assert tiers["edge"] == Settings().tiers["edge"]


def test_variable_adds_includes() -> None:
    write('[prompts]\nmore = "More."\n', "more.toml")

    assert "more" in loaded(VALID, {"MQROUTER_INCLUDE": '["more.toml"]'}).settings.prompts


def test_secret_in_its_variable_stays_a_reference() -> None:
    settings = loaded(VALID, {"MQROUTER_MQTT__PASSWORD": "hunter2"}).settings

    assert settings.mqtt.password == Secret(env="MQROUTER_MQTT__PASSWORD")
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MQROUTER_MQTT__PORT", "many", 'must be a whole number, not the text "many"'),
        ("MQROUTER_INCLUDE", '["more.toml"]', 'there is no file "more.toml"'),
        ("MQROUTER_MQT__HOST", "x", 'mqt: unknown table; did you mean "mqtt"?'),
        ("MQROUTER_MQTT__HOTS", "x", 'unknown key; did you mean "host"?'),
        ("MQROUTER_MQTT__HOST__NAME", "x", "mqtt.host is no table; set it as a whole"),
        ("MQROUTER_LIMITS", "{ max_json_depth = 0 }", "limits.max_json_depth: must be at least 1, not 0"),
        (
            "MQROUTER_TIERS__EDGE",
            '{ kind = "x" }',
            'tiers.edge.kind: must be "local", "openai" or "ollama", not the text "x"',
        ),
        ("MQROUTER_MQTT_HOST", "x", "sets nothing; did you mean MQROUTER_MQTT__HOST?"),
    ],
)
def test_problem_of_a_variable_names_it(name: str, value: str, problem: str) -> None:
    assert problems(VALID + '[mqtt]\nhost = "h"\n', {name: value}) == [f"environment: {name}: {problem}"]


def test_variables_of_others_are_left_alone() -> None:
    text = VALID + '[mqtt]\npassword = { env = "MQROUTER_MQTT_PASSWORD" }\n'

    assert loaded(text, {"MQROUTER_MQTT_PASSWORD": "x", "MQROUTER_CONFIG": "y", "MQROUTER_HUB_KEY": "z", "PATH": "p"})


# What comes out


def test_paths_are_absolute_whatever_the_folder() -> None:
    text = VALID + '[tiers.hub]\nkind = "openai"\nurl = "http://x"\nmodel = "m"\napi_key = { file = "hub.key" }\n'
    write(text + '[gateway]\nmodels_dir = "~/models"\n', "conf/mqrouter.toml")
    settings = load(Path("conf/mqrouter.toml"), {}).settings
    hub = settings.tiers["hub"]

    assert settings.gateway.data_dir == Path.cwd() / "conf/data"
    assert settings.gateway.models_dir == Path.home() / "models"
    assert isinstance(hub, OpenAiTier)
    assert hub.api_key == Secret(file=Path.cwd() / "conf/hub.key")


def test_tilde_without_a_home_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        if self.parts[:1] == ("~",):
            raise RuntimeError("Could not determine home directory.")
        return self

    write(VALID + '[mqtt.tls]\nca_file = "~/ca.crt"\n')
    monkeypatch.setattr(Path, "expanduser", homeless)

    with pytest.raises(ConfigError, match="write absolute paths"):
        load(MAIN, {}, strategies={"semantic"})


def test_origins_tell_file_variable_and_default_apart() -> None:
    write('[prompts]\nmore = "More."\n', "prompts.toml")
    origins = loaded(VALID, {"MQROUTER_MQTT__HOST": "x"}).origins

    assert str(origins["routing", "abstain", "to"]) == "mqrouter.toml:4:1"
    assert str(origins["prompts", "more"]) == "prompts.toml:2:1"
    assert str(origins["mqtt", "host"]) == "environment variable MQROUTER_MQTT__HOST"
    assert str(origins["mqtt", "port"]) == "default"
    assert str(origins["tiers", "edge", "max_tokens"]) == "default"


def test_every_value_has_an_origin() -> None:
    result = loaded(VALID)

    assert set(result.origins) == {path for path, _ in leaves(result.settings)}


def test_hash_follows_the_settings_and_nothing_else() -> None:
    plain = loaded(VALID)
    write(f"# a comment\n{VALID}", "elsewhere/mqrouter.toml")

    assert load(Path("elsewhere/mqrouter.toml"), {}).config_hash == plain.config_hash
    assert loaded(VALID, {"MQROUTER_LOG__LEVEL": "debug"}).config_hash != plain.config_hash


def test_loading_leaves_secrets_and_folders_alone() -> None:
    loaded(VALID + '[mqtt]\npassword = { env = "NOT_SET_ANYWHERE" }\n[gateway]\ndata_dir = "new"\n')

    assert [path.name for path in Path().iterdir()] == ["mqrouter.toml"]


# Which file


def test_option_wins_over_the_variable() -> None:
    assert find_config(Path("a.toml"), {"MQROUTER_CONFIG": "b.toml"}) == Path("a.toml")


def test_variable_wins_over_the_folder() -> None:
    write(VALID)

    assert find_config(None, {"MQROUTER_CONFIG": "b.toml"}) == Path("b.toml")
    assert find_config(None, {}) == MAIN


def test_no_configuration_names_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.config.PLACES", (MAIN, Path("nowhere/mqrouter.toml")))

    with pytest.raises(ConfigError, match=r"looked for mqrouter.toml and nowhere/mqrouter.toml.*mqrouter init"):
        find_config(None, {})


# The starter configuration

STARTER = starter_dir() / "mqrouter.toml"


@pytest.fixture
def starter() -> Settings:
    return load(STARTER, {}).settings


def test_starter_equals_the_defaults() -> None:
    written = Settings.model_validate(tomllib.loads(STARTER.read_text(encoding="utf-8")))
    free = {"tiers", "routes", "prompts"}

    assert written.model_dump(exclude=free) == Settings().model_dump(exclude=free)
    assert {name: written.tiers[name] for name in Settings().tiers} == Settings().tiers


def test_starter_tiers_write_down_defaults() -> None:
    chosen = {"kind", "url", "model", "trusted"}
    for tier in tomllib.loads(STARTER.read_text(encoding="utf-8"))["tiers"].values():
        fields = (LocalTier if tier["kind"] == "local" else OpenAiTier).model_fields
        assert {key: tier[key] for key in tier.keys() - chosen} == {
            key: fields[key].default for key in tier.keys() - chosen
        }


def test_starter_defines_every_tier_its_routes_name(starter: Settings) -> None:
    assert set(starter.tiers) == {"edge", "hub", "regional", "datacenter"}
    assert starter.routes


def uncommented() -> dict[str, Any]:
    lines = STARTER.read_text(encoding="utf-8").splitlines()
    keys = [line.removeprefix("#") if line[:2] not in ("# ", "#") else line for line in lines]
    return tomllib.loads("\n".join(keys))


def sections(data: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, type[BaseModel], dict[str, Any]]]:
    section = section_at(path, data)
    value = value_at(data, path)
    if section is not None and isinstance(value, dict):
        yield path, section, value
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, _ in children:
        yield from sections(data, (*path, key))


def test_starter_shows_every_key() -> None:
    data = uncommented()
    sparse = {("tiers", "regional"), ("tiers", "datacenter")}
    of_hub: dict[KeyPath, Collection[str]] = {("tiers", "barn"): OpenAiTier.model_fields.keys()}
    missing = [
        dotted((*path, key))
        for path, section, value in sections(data)
        if section is not Secret and path not in sparse
        for key in section.model_fields.keys() - set(of_hub.get(path, ())) - value.keys() - {"routes", "prompts"}
    ]

    assert missing == []


def test_starter_with_all_its_examples_is_valid() -> None:
    Settings.model_validate(uncommented())


def comments() -> dict[tuple[str, str], str]:
    """Returns the comment above each key of the starter, by its table and name."""
    table, above, found = "", "", {}
    for line in STARTER.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("# "):
            above += f" {text}"
        elif text.startswith("["):
            table, above = text.strip("[]"), ""
        elif "=" in text:
            found[table, text.split(" = ")[0]] = above
            above = ""
        else:
            above = ""
    return found


def claims(field: FieldInfo) -> list[str]:
    """Returns what a comment has to say of a field: its range, its choices."""
    bounds = {type(bound): bound for bound in field.metadata}
    low, high = bounds.get(Ge), bounds.get(Le)
    assert not bounds.keys() & {Lt}
    if isinstance(low, Ge) and isinstance(high, Le):
        return [f"{low.ge} to {high.le}"]
    if isinstance(low, Ge):
        return [f"at least {low.ge}"]
    if isinstance(gt := bounds.get(Gt), Gt):
        return [f"above {gt.gt}"]
    if field.annotation is bool:
        return ["true or false"]
    return [f'"{choice}"' for choice in get_args(field.annotation) if isinstance(choice, str)]


def test_starter_comments_state_the_ranges() -> None:
    said = comments()
    wrong = [
        (path, key, claim)
        for path, section, value in sections(uncommented())
        for key in value
        if (dotted(path).removesuffix("[0]"), key) in said and path[-1:] not in (("regional",), ("datacenter",))
        for claim in claims(section.model_fields[key])
        if claim not in said[dotted(path).removesuffix("[0]"), key]
    ]

    assert wrong == []


# Cost


def test_loading_imports_no_heavy_library() -> None:
    code = "import sys; from pathlib import Path; from mqrouter.config import load; load(Path(sys.argv[1]), {}); "
    code += "print(*{'numpy', 'aiohttp', 'structlog', 'rich', 'llama_cpp', 'asyncio'} & sys.modules.keys())"
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code, STARTER], capture_output=True, text=True, check=True, env=environ)

    assert run.stdout.split() == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", 'must be greater than 0, or "never", not 0'),
        ('"Never"', 'must be a number, or "never", not the text "Never"; did you mean "never"?'),
    ],
)
def test_value_that_may_be_a_number_or_a_word_is_one_problem_among_others(value: str, message: str) -> None:
    text = VALID + f'\n[tiers.device]\nkind = "local"\nidle_unload_s = {value}\n[queue]\nmax_requests = -1\n'
    found = [line.split(": ", 1)[1] for line in problems(text)]
    assert found == [f"tiers.device.idle_unload_s: {message}", "queue.max_requests: must be at least 1, not -1"]
