"""Local answers are calibrated on what was said of them, for the model file that gave them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from fakes import QUEUE, START_MS, request
from test_learning_commands import _embedder, config, invoke, value

from mqrouter import wiring
from mqrouter.cli import tune
from mqrouter.config import load
from mqrouter.core.answer_signals import Evidence, Judged, form_signals
from mqrouter.core.feedback import Feedback, Source, Verdict
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store

__all__ = ["_embedder", "config"]  # fixtures

MODEL = "m.gguf:1"


@pytest.fixture(autouse=True)
def _fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "chat_fingerprint", lambda settings, tier: MODEL)


def answered(config: Path, *verdicts: tuple[float, Verdict], model: str = MODEL, tier: str = "edge") -> None:
    """Writes requests that `tier` answered, each with (mean log-probability of the local answer, verdict)."""

    async def write() -> None:
        async with Database(config.parent / "data" / "mqrouter.db") as database:
            store = Store(database, Policy(QUEUE, 1, 1))
            for mean, verdict in verdicts:
                item = request("how are the cows")
                await store.accept([item], START_MS)
                (row,) = await store.next_received(10, ())
                await store.queue_for_tiers(row, ("edge",), route=None, confidence=1, decision={}, now_ms=START_MS)
                signals = form_signals("how", "Fine.", "stop", Evidence(mean, 2 * mean), [])
                judged = Judged("edge", model, signals, None, None, is_calibrated=False)
                answer = Answer("Fine.", tier=tier, judged=json.dumps(judged.to_json()))
                await store.finish(row, answer, State.ANSWERED, START_MS)
                await store.record_feedback([Feedback(item.id, verdict, Source.OPERATOR, None)], START_MS)

    asyncio.run(write())


GOOD, BAD = [(-0.2 - n / 100, Verdict.GOOD) for n in range(20)], [(-1.5 - n / 100, Verdict.BAD) for n in range(10)]


def test_calibration_is_shown_and_written_only_when_asked(config: Path) -> None:
    answered(config, *GOOD, *BAD)
    (row,) = value(tune.command, "-c", config, "--answers")["models"]
    assert (row["model"], row["good"], row["bad"], row["auroc"]) == (MODEL, 20, 10, 1.0)
    assert row["at"][1] == {"least": 0.5, "kept": 20, "good": 20}
    path = config.parent / "data" / "answers.json"
    assert not path.exists()
    assert value(tune.command, "-c", config, "--answers", "--write")["file"] == str(path)
    found = wiring.load_calibrations(load(config, {}).settings)
    assert found[MODEL].platt(-0.2, -0.4) > 0.8 > 0.3 > found[MODEL].platt(-1.5, -3.0)
    text = invoke(tune.command, "-c", config, "--answers").stdout
    assert "LEAST CONFIDENCE" in text
    assert text.startswith("smollm2-135m-instruct (tier edge): 20 good, 10 bad") and MODEL not in text


def test_what_says_nothing_of_this_models_answers_is_left_out(config: Path) -> None:
    answered(config, *GOOD, *BAD[:5])
    answered(config, *BAD, model="other.gguf:1")
    answered(config, *BAD, tier="hub")  # the local answer was not sent
    answered(config, *[(-3.0, Verdict.WRONG_ROUTE)] * 9)
    (row,) = value(tune.command, "-c", config, "--answers")["models"]
    assert (row["good"], row["bad"]) == (20, 5)


def test_too_few_verdicts_are_said_so_and_change_nothing(config: Path) -> None:
    answered(config, *GOOD, *BAD[:4])
    result = invoke(tune.command, "-c", config, "--answers", "--write")
    assert result.exit_code == 1
    assert f"20 good and 4 bad verdicts on answers of {MODEL}" in result.stderr
    assert wiring.load_calibrations(load(config, {}).settings) == {}


def test_calibrations_of_other_models_stay_and_a_damaged_file_is_replaced(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(config, *GOOD, *BAD)
    value(tune.command, "-c", config, "--answers", "--write")
    answered(config, *GOOD, *BAD, model="new.gguf:1")
    monkeypatch.setattr(wiring, "chat_fingerprint", lambda settings, tier: "new.gguf:1")
    value(tune.command, "-c", config, "--answers", "--write")
    settings = load(config, {}).settings
    assert wiring.load_calibrations(settings).keys() == {MODEL, "new.gguf:1"}
    wiring.calibrations_path(settings).write_text("{", encoding="utf-8")
    assert wiring.load_calibrations(settings) == {}
    value(tune.command, "-c", config, "--answers", "--write")
    assert wiring.load_calibrations(settings).keys() == {"new.gguf:1"}
