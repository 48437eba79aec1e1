"""A trained head reaches the decision, or the start is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fakes import HashEmbedder

from mqrouter import wiring
from mqrouter.edge.embedder import LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors
from mqrouter.errors import ConfigError
from mqrouter.routing.artefact import About, Artefact, dump
from mqrouter.routing.training import Labelled, train
from mqrouter.settings import Settings

EXAMPLES = {
    "cattle": ["how are the cows", "is the cow ill", "a cow limps", "cow and calf"],
    "code": ["write a script", "fix my program", "script error", "my program stops"],
}
EMBEDDER = cast(LlamaEmbedder, HashEmbedder())


def settings(tmp_path: Path, **routing: Any) -> Settings:
    routes = {name: {"examples": texts, "to": ["edge"]} for name, texts in EXAMPLES.items()}
    return Settings.model_validate({"gateway": {"data_dir": tmp_path}, "routing": routing, "routes": routes})


async def write_head(folder: Path, embedder: str) -> None:
    texts = tuple(text for found in EXAMPLES.values() for text in found)
    vectors = np.stack([(await EMBEDDER.embed(text)).vector for text in texts])
    head = train(Labelled(texts, vectors, np.repeat([0, 1], 4), tuple(EXAMPLES)), seed=0).head
    (folder / "head.npz").write_bytes(dump(Artefact(About(embedder, "hash", 0, 0.95, 8), head)))


def vectors(tmp_path: Path) -> ExampleVectors:
    return ExampleVectors(tmp_path / "examples.npz", "words")


async def test_head_of_this_embedder_decides(tmp_path: Path) -> None:
    await write_head(tmp_path, "words")
    judge = await wiring.build_judge(settings(tmp_path, strategy="learned"), EMBEDDER, vectors(tmp_path))
    assert judge.strategy_name == "learned"


@pytest.mark.parametrize(("embedder", "message"), [(None, "mqrouter train"), ("nomic", "trained for embedder nomic")])
async def test_start_without_a_fitting_head_is_refused(tmp_path: Path, embedder: str | None, message: str) -> None:
    if embedder is not None:
        await write_head(tmp_path, embedder)
    with pytest.raises(ConfigError, match=message):
        await wiring.build_judge(settings(tmp_path, strategy="learned"), EMBEDDER, vectors(tmp_path))


async def test_other_strategies_never_look_at_the_head(tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(b"damaged")
    assert (await wiring.build_judge(settings(tmp_path, strategy="knn"), EMBEDDER, vectors(tmp_path))).strategy


async def test_every_strategy_is_compared_and_learned_only_with_a_head(tmp_path: Path) -> None:
    without = await wiring.build_strategies(settings(tmp_path), EMBEDDER, vectors(tmp_path))
    await write_head(tmp_path, "words")
    found = await wiring.build_strategies(settings(tmp_path), EMBEDDER, vectors(tmp_path))
    assert found.keys() - without.keys() == {"learned"}


def listening(tmp_path: Path, strategy: str) -> Settings:
    plain = settings(tmp_path).model_dump(exclude_unset=True)
    listener = {"filter": "a/+", "device_level": 1, "answer": "b/{device}", "strategy": strategy}
    return Settings.model_validate(plain | {"listeners": [listener]})


async def test_listener_that_needs_a_head_is_named_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"listeners\[0\]\.strategy"):
        await wiring.build_judge(listening(tmp_path, "learned"), EMBEDDER, vectors(tmp_path))


async def test_every_strategy_can_be_asked_for_and_shares_the_examples(tmp_path: Path) -> None:
    await write_head(tmp_path, "words")
    judge = await wiring.build_judge(listening(tmp_path, "knn"), EMBEDDER, vectors(tmp_path))
    matrices = [judge.others[name]._index._vectors for name in ("semantic", "knn", "hybrid", "learned")]  # type: ignore[attr-defined]
    assert all(np.shares_memory(matrices[0], matrix) for matrix in matrices)
