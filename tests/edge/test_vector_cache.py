"""Vectors of texts on disk: computed once per model, whatever happened to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mqrouter.edge.vector_cache import KEY_BYTES, SAVED_EVERY, VectorCache


class Model:
    def __init__(self, dim: int = 3) -> None:
        self.texts: list[str] = []
        self.dim = dim

    async def embed(self, text: str) -> np.ndarray:
        self.texts.append(text)
        return np.full(self.dim, len(text), dtype=np.float32)


@pytest.fixture
def model() -> Model:
    return Model()


async def test_known_texts_are_not_embedded_again(tmp_path: Path, model: Model) -> None:
    await VectorCache(tmp_path, "a").embed_all(["x", "yy"], model.embed)
    found = await VectorCache(tmp_path, "a").embed_all(["yy", "zzz", "x", "zzz"], model.embed)
    assert model.texts == ["x", "yy", "zzz"]
    assert found[:, 0].tolist() == [2, 3, 1, 3]


async def test_another_model_has_vectors_of_its_own_and_the_file_of_the_former_goes(tmp_path: Path) -> None:
    first, second = Model(), Model(5)
    await VectorCache(tmp_path, "a").embed_all(["x"], first.embed)
    found = await VectorCache(tmp_path, "b").embed_all(["x"], second.embed)
    assert (found.shape, second.texts) == ((1, 5), ["x"])
    assert len(list(tmp_path.iterdir())) == 1
    await VectorCache(tmp_path, "b").embed_all(["x"], second.embed)
    assert second.texts == ["x"]


async def test_full_file_loses_what_was_asked_for_longest_ago(tmp_path: Path, model: Model) -> None:
    record = KEY_BYTES + 3 * 4
    for texts in (["old"], ["kept"], ["1", "2", "3", "4", "5", "6"], ["kept", "new"]):
        await VectorCache(tmp_path, "a", max_bytes=8 * record).embed_all(texts, model.embed)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 8 * record
    model.texts.clear()
    await VectorCache(tmp_path, "a", max_bytes=8 * record).embed_all(["kept", "new", "6"], model.embed)
    assert model.texts == []
    await VectorCache(tmp_path, "a", max_bytes=8 * record).embed_all(["old"], model.embed)
    assert model.texts == ["old"]


async def test_file_cut_short_is_made_again(tmp_path: Path, model: Model) -> None:
    await VectorCache(tmp_path, "a").embed_all(["x", "yy"], model.embed)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    found = await VectorCache(tmp_path, "a").embed_all(["x", "yy"], model.embed)
    assert found[:, 0].tolist() == [1, 2]
    await VectorCache(tmp_path, "a").embed_all(["yy"], model.embed)
    assert model.texts == ["x", "yy", "yy"]


async def test_what_was_embedded_before_an_error_is_kept(tmp_path: Path, model: Model) -> None:
    async def failing(text: str) -> np.ndarray:
        if text == "bad":
            raise RuntimeError("no")
        return await model.embed(text)

    texts = [str(number) for number in range(SAVED_EVERY)]
    with pytest.raises(RuntimeError):
        await VectorCache(tmp_path, "a").embed_all([*texts, "bad"], failing)
    await VectorCache(tmp_path, "a").embed_all(texts, model.embed)
    assert len(model.texts) == SAVED_EVERY


async def test_progress_ends_at_what_was_missing(tmp_path: Path, model: Model) -> None:
    told: list[tuple[int, int]] = []
    cache = VectorCache(tmp_path, "a")
    await cache.embed_all(["x", "yy"], model.embed, lambda done, total: told.append((done, total)))
    await cache.embed_all(["x", "yy"], model.embed, lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (2, 2), (0, 0)]
