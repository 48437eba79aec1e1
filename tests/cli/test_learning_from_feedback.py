"""Verdicts as examples: capped, held out of no figure; and the way back to the head before."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import PREFIX, QUEUE, START_MS, request
from test_learning_commands import QUESTIONS, _embedder, config, invoke, value

from mqrouter import wiring
from mqrouter.cli import train, tune
from mqrouter.cli.retrain import Quality
from mqrouter.core.feedback import Feedback, Source, Verdict
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.routing.artefact import load

__all__ = ["_embedder", "config"]  # fixtures


@pytest.fixture(autouse=True)
def _fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "embedder_fingerprint", lambda settings: "words:1:")


BY_TEXT = {"reason": "above_threshold"}


def judge(config: Path, *verdicts: tuple[str, str, str, str | None]) -> None:
    """Writes requests of (device, question, route decided), judged good or with the right route."""

    async def write() -> None:
        async with Database(config.parent / "data" / "mqrouter.db") as database:
            store = Store(database, Policy(QUEUE, 1, 1))
            for device, text, route, right in verdicts:
                item = request(text, topic=f"{PREFIX}/ask/{device}")
                await store.accept([item], START_MS)
                (row,) = await store.next_received(10, ())
                await store.queue_for_tiers(
                    row, ("edge",), route=route, confidence=1, decision=BY_TEXT, now_ms=START_MS
                )
                word = Verdict.GOOD if right is None else Verdict.WRONG_ROUTE
                await store.record_feedback([Feedback(item.id, word, Source.MQTT, device, right)], START_MS)

    asyncio.run(write())


def about(found: dict[str, Any]) -> Any:
    return load(Path(found["file"]).read_bytes(), embedder="words:1:").about


def test_verdicts_add_examples_up_to_the_cap(config: Path) -> None:
    judge(config, *[("d1", f"the tractor {n}", "cattle", None) for n in range(9)], ("d2", "oil", "cattle", "code"))
    plain = value(train.command, "-c", config)
    found = value(train.command, "-c", config, "--from-feedback")
    assert found["feedback"] == {"used": 4, "labelled": 10}
    assert found["examples"] == plain["examples"] + 4
    assert value(tune.command, "-c", config, "--from-feedback")["feedback"]["used"] == 4


def test_figures_are_of_configured_examples_alone(config: Path) -> None:
    judge(config, *[(f"d{n}", f"unrelated {n} word{n}", "cattle", "code") for n in range(9)])
    found = value(tune.command, "-c", config, "--from-feedback", "--hurting", 100)
    assert sum(row["held_out"] for row in found["by_route"]) <= len(QUESTIONS) + 2
    assert "unrelated" not in json.dumps(found["hurting"])


def test_head_that_would_be_worse_is_not_taken(config: Path) -> None:
    value(train.command, "-c", config)
    path = config.parent / "data" / "head.npz"
    before = path.read_bytes()
    wrong = [(f"d{n}", f"{text} ok", route, "water") for n, (text, route) in enumerate(QUESTIONS) if route != "water"]
    judge(config, *wrong)
    found = value(train.command, "-c", config, "--from-feedback", "--if-not-worse")
    assert not found["replaced"] and "held-out quality would fall from accuracy" in found["why"]
    assert path.read_bytes() == before


def test_head_that_is_as_good_is_taken_and_can_be_taken_back(config: Path) -> None:
    first = value(train.command, "-c", config)
    path = Path(first["file"])
    before = path.read_bytes()
    judge(config, ("d1", "cow cow", "cattle", None), ("d2", "valve valve", "water", None))
    found = value(train.command, "-c", config, "--from-feedback", "--if-not-worse")
    assert found["replaced"] and about(found).examples == first["examples"] + 2
    assert path.with_name("head.previous.npz").read_bytes() == before
    after = path.read_bytes()
    value(train.command, "-c", config, "--rollback")
    assert (path.read_bytes(), path.with_name("head.previous.npz").read_bytes()) == (before, after)
    value(train.command, "-c", config, "--rollback")
    assert path.read_bytes() == after
    assert {file.name for file in path.parent.glob("head*")} == {"head.npz", "head.previous.npz"}


def test_what_was_taken_back_is_not_learnt_again_by_itself(config: Path) -> None:
    path = Path(value(train.command, "-c", config)["file"])
    before = path.read_bytes()
    judge(config, ("d1", "cow cow", "cattle", None))
    assert value(train.command, "-c", config, "--from-feedback", "--if-not-worse")["replaced"]
    value(train.command, "-c", config, "--rollback")
    again = value(train.command, "-c", config, "--from-feedback", "--if-not-worse")
    assert not again["replaced"] and "--rollback" in again["why"]
    assert path.read_bytes() == before


def test_training_the_same_twice_keeps_the_way_back(config: Path) -> None:
    path = Path(value(train.command, "-c", config)["file"])
    before = path.read_bytes()
    for _ in range(2):
        value(train.command, "-c", config, "--target-precision", "0.8")
    assert path.with_name("head.previous.npz").read_bytes() == before != path.read_bytes()


def test_same_examples_are_not_learnt_twice(config: Path) -> None:
    judge(config, ("d1", "cow cow", "cattle", None))
    value(train.command, "-c", config, "--from-feedback")
    assert value(train.command, "-c", config, "--from-feedback", "--if-not-worse")["why"] == "nothing new to learn from"


def test_target_precision_of_the_head_in_use_stays(config: Path) -> None:
    value(train.command, "-c", config, "--target-precision", "0.8")
    judge(config, ("d1", "cow cow", "cattle", None))
    assert value(train.command, "-c", config, "--from-feedback", "--if-not-worse")["target_precision"] == 0.8


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_rollback_to_nothing_is_refused(config: Path, content: bytes | None) -> None:
    path = Path(value(train.command, "-c", config)["file"])
    before = path.read_bytes()
    if content is not None:
        path.with_name("head.previous.npz").write_bytes(content)
    result = invoke(train.command, "-c", config, "--rollback")
    assert result.exit_code == 1 and "head.previous.npz" in result.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("new", "bar", "is_below"),
    [
        ((0.9, 0.9), (0.9, 0.9), False),
        ((0.89, 0.95), (0.9, 0.9), True),
        ((0.95, 0.89), (0.9, 0.9), True),
        ((0.9, None), (0.9, None), False),
    ],
)
def test_either_figure_may_not_fall(
    new: tuple[float, float | None], bar: tuple[float, float | None], is_below: bool
) -> None:
    assert Quality(*new).is_below(Quality(*bar)) is is_below
