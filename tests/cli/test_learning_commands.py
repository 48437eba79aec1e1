"""`mqrouter eval`, `train` and `tune`, with an embedder that counts words instead of a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes import word_vector
from threadpoolctl import threadpool_info, threadpool_limits

from mqrouter.cli import eval as eval_command
from mqrouter.cli import labelled, train, tune
from mqrouter.cli.common import echo_json
from mqrouter.cli.labelled import Embedded
from mqrouter.routing.artefact import load
from mqrouter.routing.gain import forms_of
from mqrouter.routing.perturb import CHANGES

SUBJECTS = {"cattle": "cow", "water": "valve", "code": "python"}
WAYS = ("how is the {}", "tell me about my {}", "the {} again", "is this {} all right", "what about a {} today")
QUESTIONS = [(way.format(noun), route) for route, noun in SUBJECTS.items() for way in WAYS]


def texts_of(route: str) -> list[str]:
    return [text for text, label in QUESTIONS if label == route]


@pytest.fixture(autouse=True)
def _embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(settings: object, texts: Sequence[str]) -> Embedded:
        return Embedded(np.stack([word_vector(text) for text in texts]), "words:1:")

    for module in (eval_command, train, labelled):
        monkeypatch.setattr(module, "embed", embed)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    routes = [f'[routes.{route}]\nto = ["edge"]\nexamples = {json.dumps(texts_of(route))}' for route in SUBJECTS]
    path = tmp_path / "mqrouter.toml"
    none = '[prompts]\nchat = "Chat."\n[routing.abstain]\nexamples = ["who sang this", "a pizza please"]'
    path.write_text("\n".join([none, *routes]))
    return path


def invoke(command: click.Command, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def value(command: click.Command, *words: object) -> Any:
    result = invoke(command, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    path = tmp_path / "intents.json"
    test = [(f"so {text}", label) for text, label in QUESTIONS]
    path.write_text(json.dumps({"train": QUESTIONS, "held": test, "oos": [["pizza", "oos"], ["who sang", "oos"]]}))
    return path


def test_intents_are_reported_for_all_that_apply(splits: Path) -> None:
    found = value(eval_command.command, "intents", splits, "--test", "held", "--out-of-scope", "oos", "--per-route", 3)
    assert [report["strategy"] for report in found["strategies"]] == ["semantic", "knn", "learned"]
    assert (found["routes"], found["examples"], found["questions"]) == (3, 9, 17)
    assert all(report["accuracy"] > 0.4 and report["auroc"] is not None for report in found["strategies"])


def test_same_seed_draws_the_same_examples(splits: Path) -> None:
    def figures(seed: int) -> list[tuple[float, float]]:
        words = ("intents", splits, "--test", "held", "--per-route", 2, "--seed", seed)
        found = value(eval_command.command, *words)["strategies"]
        return [(report["accuracy"], report["calibration_error"]) for report in found]

    assert figures(1) == figures(1)


def test_table_is_for_people(splits: Path) -> None:
    result = invoke(eval_command.command, "intents", splits, "--test", "held", "--strategy", "semantic")
    assert "STRATEGY" in result.stdout and "semantic" in result.stdout and "knn" not in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--test", "tset"], "it has train, held, oos"), (["--test", "held", "--strategy", "astrology"], "astrology")],
)
def test_wrong_words_are_named(splits: Path, words: list[str], message: str) -> None:
    result = invoke(eval_command.command, "intents", splits, *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_file_of_another_form_says_what_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    result = invoke(eval_command.command, "intents", path)
    assert result.exit_code == 1
    assert "JSON of the form" in result.stderr


def test_configured_routes_are_measured_on_a_file(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows: list[dict[str, Any]] = [{"question": f"and {text}", "route": route} for text, route in QUESTIONS]
    rows += [{"question": "the cow", "route": "code", "also": ["cattle"]}, {"question": "pizza", "route": None}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = value(eval_command.command, "questions", path, "-c", config)
    assert found["strategies"][2]["strategy"] == "learned"
    assert found["strategies"][2]["accuracy"] == 1.0


def test_changes_of_wording_are_counted(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("text,label\n" + "".join(f"{text},{route}\n" for text, route in QUESTIONS))
    found = value(eval_command.command, "robustness", path, "-c", config)["robustness"]
    assert {row["change"] for row in found} == set(CHANGES)
    assert all(0 <= row["flipped"] <= row["changed"] <= 1 for row in found)
    assert [row["changed"] for row in found if (row["strategy"], row["change"]) == ("learned", "case")] == [0.0]


def test_gains_are_reported_beside_their_baselines(tmp_path: Path) -> None:
    path = tmp_path / "gains.csv"
    lines = [f"question {i} {'hard' if i % 3 else 'easy'},{int(i % 3 == 0)},1" for i in range(60)]
    path.write_text("\n".join(["prompt,weak_correct,strong_correct", *lines]))
    found = value(eval_command.command, "gain", path, "--rounds", 20)
    assert {report["strategy"] for report in found["strategies"]} == {"learned", "knn", "token", "random", "oracle"}
    assert "oracle" in invoke(eval_command.command, "gain", path, "--rounds", 20).stdout


@pytest.mark.parametrize(("weak", "strong"), [(1, 1), (1, 0)])
def test_gains_need_a_gain(tmp_path: Path, weak: int, strong: int) -> None:
    path = tmp_path / "gains.csv"
    path.write_text("prompt,weak_correct,strong_correct\n" + f"a question,{weak},{strong}\n" * 30)
    result = invoke(eval_command.command, "gain", path)
    assert result.exit_code == 1 and "gains.csv: the strong tier is not right more often" in result.stderr


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": QUESTIONS, "val": []}, "'val' is empty"),
        ({"train": [*QUESTIONS, ["x", "lonely"]], "val": QUESTIONS}, "too few examples of lonely"),
        ({"train": [["a", "one"], ["b", "one"]], "val": [["a", "one"]]}, "no other route beside one"),
        ({"train": QUESTIONS, "val": [["a", None]]}, "no question of it has a route"),
        ({"train": QUESTIONS, "val": [["a", "astrology"]]}, '"astrology", of "a", is not one of the routes'),
    ],
)
def test_splits_that_say_nothing_are_refused(tmp_path: Path, splits: dict[str, Any], message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(splits))
    result = invoke(eval_command.command, "intents", path)
    assert result.exit_code in (1, 2) and message in result.stderr


@pytest.mark.parametrize("name", ["heuristic", "token", "perf", "hybrid", "cascade"])
def test_strategy_that_cannot_be_measured_is_refused_by_name(splits: Path, name: str) -> None:
    result = invoke(eval_command.command, "intents", splits, "--test", "held", "--strategy", name)
    assert result.exit_code == 2 and f"{name} cannot be measured here: it" in result.stderr.replace("its", "it")


def test_configured_words_tiers_and_head_are_measured(tmp_path: Path, config: Path) -> None:
    words = [f"[routes.{route}]\nwords = {json.dumps([noun])}" for route, noun in SUBJECTS.items()]
    text = config.read_text()
    for line in words:
        section, _, rule = line.partition("\n")
        text = text.replace(section, f"{section}\n{rule}")
    config.write_text(text)
    path = tmp_path / "q.csv"
    path.write_text("text,label\n" + "".join(f"{text},{route}\n" for text, route in QUESTIONS))
    found = {row["strategy"]: row for row in value(eval_command.command, "questions", path, "-c", config)["strategies"]}
    assert set(found) == {"heuristic", "semantic", "knn", "learned", "hybrid"}
    assert found["heuristic"]["accuracy"] == 1.0
    value(train.command, "-c", config)
    with_head = value(eval_command.command, "questions", path, "-c", config)["strategies"]
    cascade, learned = ([row for row in with_head if row["strategy"] == name] for name in ("cascade", "learned"))
    assert cascade[0]["accuracy"] == learned[0]["accuracy"]
    result = invoke(eval_command.command, "questions", path, "-c", config, "--strategy", "perf")
    assert result.exit_code == 2 and "perf cannot be measured here" in result.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1.1"])
def test_target_is_a_finite_number_of_its_range(config: Path, number: str) -> None:
    result = invoke(train.command, "-c", config, f"--target-precision={number}")
    assert result.exit_code == 2 and "--target-precision" in result.stderr


def test_figures_that_do_not_exist_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"a": [float("nan"), 1.5], "b": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": None}


@pytest.mark.parametrize("command", [train.command, tune.command])
def test_numpy_learns_on_one_thread(config: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command) -> None:
    seen: list[int] = []

    def embed(settings: object, texts: Sequence[str]) -> Embedded:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return Embedded(np.stack([word_vector(text) for text in texts]), "words:1:")

    monkeypatch.setattr(train, "embed", embed)
    with threadpool_limits(2, "blas"):
        value(command, "-c", config)
    assert set(seen) == {1}


LEARNING = """
import hashlib, numpy as np
from mqrouter.cli.blas import one_thread
from mqrouter.routing.artefact import About, Artefact, dump
from mqrouter.routing.training import Labelled, train
with one_thread():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 10)
    vectors = (rng.normal(size=(20, 384))[labels] + rng.normal(size=(200, 384))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = Labelled(tuple(map(str, labels)), vectors, labels, tuple(map(str, range(20))))
    print(hashlib.sha256(dump(Artefact(About("e", "h", 0, 0.95, 200), train(data, seed=0).head))).hexdigest())
"""


def test_same_seed_makes_the_same_file_on_any_number_of_threads() -> None:
    files = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        ran = subprocess.run(
            [sys.executable, "-c", LEARNING], env=environment, check=True, capture_output=True, text=True
        )
        files.add(ran.stdout)
    assert len(files) == 1


def test_gains_need_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "gains.csv"
    path.write_text("prompt,weak_correct,strong_correct\nx,0,1\n")
    assert "too few" in invoke(eval_command.command, "gain", path).stderr


def test_trained_head_is_written_and_can_be_read(config: Path, tmp_path: Path) -> None:
    found = value(train.command, "-c", config, "--seed", 3)
    head = load(Path(found["file"]).read_bytes(), embedder="words:1:", routes=tuple(SUBJECTS))
    assert (head.about.seed, head.about.examples, found["routes"]) == (3, 17, 3)
    assert head.head.routes[head.head.score(word_vector("my cow"), "my cow").best] == "cattle"
    assert not list(tmp_path.rglob("*.part"))


def test_file_adds_examples_and_the_configuration_goes_first(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text(f"text,label\n{QUESTIONS[0][0]},code\nthe old cow,cattle\nweather,\n")
    assert value(train.command, path, "-c", config, "--out", tmp_path / "h.npz")["examples"] == 19


def test_label_of_no_route_is_named(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("text,label\nhello,astrology\n")
    result = invoke(train.command, path, "-c", config)
    assert result.exit_code == 1
    assert "astrology" in result.stderr


def test_tune_shows_every_route_and_writes_only_when_asked(config: Path, tmp_path: Path) -> None:
    found = value(tune.command, "-c", config)
    assert [row["route"] for row in found["by_route"]] == list(SUBJECTS)
    assert not list(tmp_path.rglob("head.npz"))
    assert Path(value(tune.command, "-c", config, "--write")["file"]).exists()


def test_tune_names_the_example_under_the_wrong_route(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("text,label\nmy cow and the other cow,code\n")
    result = invoke(tune.command, path, "-c", config)
    assert result.exit_code == 0, result.output
    hurting = result.stdout.partition("Examples that hurt")[2]
    assert "my cow and the other cow" in hurting


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    path = tmp_path / "outcomes.csv"
    lines = [f"{text} {i},{int(route != 'code')},1" for i, (text, route) in enumerate(QUESTIONS * 4)]
    path.write_text("\n".join(["prompt,weak_correct,strong_correct", *lines]))
    return path


def test_outcomes_teach_when_the_stronger_tier_is_worth_it(config: Path, outcomes: Path) -> None:
    found = value(train.command, "-c", config, "--outcomes", outcomes)
    gain = load(Path(found["file"]).read_bytes(), embedder="words:1:").gain
    assert gain is not None and gain.trust == found["gain"]["trust"] > 0.5
    asked = ["how is the python", "how is the cow"]
    expected = gain.predict(np.stack([word_vector(text) for text in asked]), forms_of(asked))
    assert expected[0] > expected[1] + 0.2


def test_gain_outlives_a_training_of_the_routes_alone(config: Path, outcomes: Path) -> None:
    value(train.command, "-c", config, "--outcomes", outcomes)
    found = value(train.command, "-c", config)
    assert load(Path(found["file"]).read_bytes(), embedder="words:1:").gain is not None
    assert "gain of the stronger tier" in invoke(train.command, "-c", config, "--outcomes", outcomes).stdout


def test_outcomes_of_another_form_say_what_is_expected(config: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    result = invoke(train.command, "-c", config, "--outcomes", tmp_path / "x.csv")
    assert result.exit_code == 1 and "prompt,weak_correct,strong_correct" in result.stderr
