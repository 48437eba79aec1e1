"""`mqrouter bench`: from words on the command line to figures, files and charts."""

from __future__ import annotations

import csv
import json
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import EXAMPLES, HashEmbedder, ScriptedTier

from mqrouter import wiring
from mqrouter.bench import plot, runner
from mqrouter.bench.rows import QUERY_COLUMNS, TOTAL_COLUMNS
from mqrouter.cli.bench import command
from mqrouter.core.events import Done
from mqrouter.edge import power
from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.settings import Settings

ROOT = Path(__file__).parents[2]
QUESTIONS = [
    {"question": "how are the cows doing", "route": "cattle"},
    {"question": "will it rain", "route": "weather"},
    {"question": "pizza", "route": None},
]


class WordEmbedder(HashEmbedder):
    async def start(self) -> None:
        """There is nothing to load."""

    async def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture
def tiers(monkeypatch: pytest.MonkeyPatch) -> dict[str, ScriptedTier]:
    clients = {
        "hub": ScriptedTier(["fine", Done("stop", "big-1", 1_000, 500)]),
        "edge": ScriptedTier(["fine", Done("stop", "smol-1", 10, 5)]),
    }

    async def open_client(settings: Settings, name: str, stack: AsyncExitStack) -> ScriptedTier:
        return clients[name]

    monkeypatch.setattr(runner, "open_client", open_client)
    return clients


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder that counts words, and no meter."""
    monkeypatch.setattr(wiring, "embedder", lambda settings: (WordEmbedder(), "words:1:"))
    monkeypatch.setattr(runner, "find_meter", lambda: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    routes = [f'[routes.{name}]\nto = ["hub"]\nexamples = {json.dumps(texts)}' for name, texts in EXAMPLES.items()]
    hub = 'kind = "openai"\nurl = "http://127.0.0.1:9/v1"\nmodel = "big"\n'
    prices = "prompt_price_per_million = 1.0\ncompletion_price_per_million = 2.0\n"
    path = tmp_path / "mqrouter.toml"
    path.write_text(
        f'[tiers.edge]\nkind = "local"\n[tiers.hub]\n{hub}{prices}[prompts]\nchat = "C"\n' + "\n".join(routes)
    )
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, QUESTIONS)))
    return path


def invoke(config: Path, questions: Path, *words: object) -> Result:
    return CliRunner().invoke(command, ["-c", str(config), "--questions", str(questions), *map(str, words)])


def value(config: Path, questions: Path, *words: object) -> Any:
    result = invoke(config, questions, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def test_every_combination_is_measured_and_written_down(config: Path, questions: Path, tmp_path: Path) -> None:
    totals, queries = tmp_path / "totals.csv", tmp_path / "queries.csv"
    words = ("--strategies", "semantic", "knn", "--thresholds", "-0.5", "0.3", "--cache-modes", "off", "on")
    found = value(config, questions, *words, "--csv", totals, "--per-query-csv", queries, "--repeat", 2)
    combinations = [(row["strategy"], row["threshold"], row["cache_mode"]) for row in found["configurations"]]
    assert combinations == [(s, t, c) for s in ("semantic", "knn") for t in (-0.5, 0.3) for c in ("off", "on")]
    header, rows = read(totals)
    assert header == list(TOTAL_COLUMNS)
    assert [row["cached_share"] for row in rows] == ["0", "0.5"] * 4
    header, rows = read(queries)
    assert header == list(QUERY_COLUMNS)
    assert len(rows) == 8 * 2 * 3
    first = next(row for row in rows if row["threshold"] == "0.3" and row["question"] == "1")
    assert (first["route"], first["tier"], first["model"], first["success"]) == ("cattle", "hub", "big", "1")
    assert (first["correct"], first["cost"], first["energy_j"], first["escalated"]) == ("1", "", "", "")


def test_threshold_changes_what_is_taken(config: Path, questions: Path) -> None:
    low, high = value(config, questions, "--thresholds", -1, 1)["configurations"]
    assert (low["coverage"], high["coverage"]) == (pytest.approx(2 / 3), 0.0)  # pizza is as near to all routes
    assert high["accuracy"] == pytest.approx(1 / 3)


def test_tiers_are_asked_and_paid_for(config: Path, questions: Path, tiers: dict[str, ScriptedTier]) -> None:
    (total,) = value(config, questions, "--answer", "--strategies", "semantic")["configurations"]
    assert (total["prompt_tokens"], total["completion_tokens"]) == (3_000, 1_500)
    assert (total["cost"], total["success_share"], total["tier_mix"]) == (pytest.approx(0.006), 1.0, {"hub": 1.0})
    assert tiers["edge"].probed == 1


def test_failures_of_tiers_are_named(config: Path, questions: Path, tiers: dict[str, ScriptedTier]) -> None:
    tiers["hub"].then(UnreachableError("cannot connect"))
    result = invoke(config, questions, "--answer")
    assert result.exit_code == 0
    assert "failed 1 times: hub: cannot connect" in result.stderr


def test_missing_meter_is_said_once(config: Path, questions: Path) -> None:
    result = invoke(config, questions, "--cache-modes", "off", "on")
    assert result.stderr.count("energy:") == 1
    assert "STRATEGY" in result.stdout and "semantic" in result.stdout


def test_meter_is_read(config: Path, questions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, content in {"name": "package-0", "energy_uj": "5", "max_energy_range_uj": "9999"}.items():
        (zone / name).write_text(content)
    monkeypatch.setattr(runner, "find_meter", lambda: power.find_meter(tmp_path))
    found = value(config, questions)
    assert (found["energy_meter"], found["configurations"][0]["energy_per_query_j"]) == ("RAPL", 0.0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--strategies", "semantic", "astrology"], 2, "no strategy is called astrology: there are cascade"),
        (["--thresholds", "2"], 2, "--thresholds"),
        (["--cache-modes", "maybe"], 2, "maybe"),
        (["--strategies"], 2, "requires an argument"),
        (["semantic"], 2, "unexpected extra argument"),
        (["--csv", "same", "--per-query-csv", "same"], 2, "two files"),
        (["--csv", "gone/away.csv"], 1, "gone/away.csv"),
        (["--strategies", "learned"], 78, "mqrouter train"),
    ],
)
def test_wrong_words_are_named(config: Path, questions: Path, words: list[str], code: int, message: str) -> None:
    result = invoke(config, questions, *words)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_label_of_no_route_is_named(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "route": "astrology"}')
    result = invoke(config, path)
    assert (result.exit_code, "astrology" in result.stderr) == (1, True)


def test_missing_model_ends_with_the_remedy(config: Path, questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def embedder(settings: Settings) -> None:
        raise ModelFileError("no model: run mqrouter models pull")

    monkeypatch.setattr(wiring, "embedder", embedder)
    result = invoke(config, questions)
    assert (result.exit_code, result.stderr) == (78, "mqrouter: no model: run mqrouter models pull\n")


def test_columns_are_explained() -> None:
    result = CliRunner().invoke(command, ["--columns"])
    assert result.exit_code == 0
    assert all(f"\n{name} " in result.stdout for name in [*QUERY_COLUMNS, *TOTAL_COLUMNS])


def test_missing_matplotlib_names_the_extra_before_anything_is_measured(
    config: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    result = invoke(config, questions, "--plot", tmp_path, "--csv", tmp_path / "totals.csv")
    assert result.exit_code == 1
    assert "pip install 'mqrouter[plot]'" in result.stderr
    assert not (tmp_path / "totals.csv").exists()


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is missing: pip install 'mqrouter[plot]'")
def test_charts_are_png(config: Path, questions: Path, tmp_path: Path, tiers: dict[str, ScriptedTier]) -> None:
    for words, charts in (
        ((), {"latency.png", "latency_accuracy.png"}),
        (("--answer",), {"latency.png", "cost_accuracy.png"}),
    ):
        folder = tmp_path / f"charts{len(words)}"
        result = invoke(config, questions, "--cache-modes", "off", "on", "--plot", folder, *words)
        assert result.exit_code == 0, result.output
        assert {path.name for path in folder.iterdir()} == charts
        assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in folder.iterdir())


@pytest.mark.real_model
def test_real_questions_are_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    lines = (ROOT / "tests/data/farm_questions.jsonl").read_text(encoding="utf-8").splitlines()
    some, totals, queries = tmp_path / "some.jsonl", tmp_path / "totals.csv", tmp_path / "queries.csv"
    some.write_text("\n".join(lines[::27]), encoding="utf-8")
    words = ("--strategies", "semantic", "knn", "--csv", totals, "--per-query-csv", queries)
    monkeypatch.setenv("MQROUTER_GATEWAY__DATA_DIR", str(tmp_path))
    found = value(ROOT / "config/mqrouter.toml", some, *words)
    assert found["questions"] == 20
    assert [row["count"] for row in found["configurations"]] == [20, 20]
    assert all(row["accuracy"] >= 0.6 and row["latency_p50_ms"] > 0 for row in found["configurations"])
    _, rows = read(queries)
    assert all(float(row["embed_ms"]) > 0 and float(row["decision_ms"]) > 0 for row in rows)
