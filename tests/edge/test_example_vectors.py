"""A restart embeds nothing anew, and a file that is of no use is simply made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import word_vector

from mqrouter.edge.example_vectors import ExampleVectors, Matrix

TEXTS = ["how are the cows", "will it rain", "ä \N{COW}"]


class Counting:
    def __init__(self) -> None:
        self.texts: list[str] = []

    async def __call__(self, text: str) -> Matrix:
        self.texts.append(text)
        return word_vector(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "examples.npz"


async def embedded(path: Path, texts: list[str], fingerprint: str = "m:1") -> list[str]:
    """Returns which texts had to be embedded; all vectors are right."""
    counting = Counting()
    found = await ExampleVectors(path, fingerprint).embed_all(texts, counting)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([word_vector(text) for text in texts]))
    return counting.texts


async def test_second_start_embeds_nothing(path: Path) -> None:
    assert await embedded(path, TEXTS) == TEXTS
    assert await embedded(path, TEXTS) == []
    assert await embedded(path, list(reversed(TEXTS))) == []


async def test_only_new_examples_are_embedded_and_old_ones_leave_the_file(path: Path) -> None:
    await embedded(path, TEXTS)
    assert await embedded(path, [TEXTS[0], "new one"]) == ["new one"]
    assert await embedded(path, TEXTS) == TEXTS[1:]


async def test_reload_uses_what_is_in_memory(path: Path) -> None:
    counting, vectors = Counting(), ExampleVectors(path, "m:1")
    await vectors.embed_all(TEXTS, counting)
    path.unlink()
    await vectors.embed_all(TEXTS, counting)
    assert counting.texts == TEXTS


async def test_same_example_in_two_routes_is_fine(path: Path) -> None:
    await embedded(path, ["a b", "a b"])
    assert await embedded(path, ["a b", "a b"]) == []


async def test_vectors_of_another_model_or_prefix_are_dropped(path: Path) -> None:
    await embedded(path, TEXTS, "m:1")
    assert await embedded(path, TEXTS, "m:2") == TEXTS
    assert await embedded(path, TEXTS, "m:2") == []


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
async def test_damaged_file_is_made_again(path: Path, keep: int) -> None:
    await embedded(path, TEXTS)
    path.write_bytes(path.read_bytes()[:keep])
    assert await embedded(path, TEXTS) == TEXTS
    assert await embedded(path, TEXTS) == []


async def test_flipped_bits_are_noticed(path: Path) -> None:
    await embedded(path, TEXTS)
    data = bytearray(path.read_bytes())
    place = data.index(word_vector(TEXTS[0]).tobytes()[:64])
    data[place + 3] ^= 0xFF
    path.write_bytes(data)
    assert await embedded(path, TEXTS) == TEXTS


async def test_pickled_file_is_not_executed(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, fingerprint=np.array("m:1"), keys=np.array([object()]), vectors=np.array([object()]))
    assert await embedded(path, TEXTS) == TEXTS


async def test_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    assert await embedded(tmp_path / "missing" / "examples.npz", TEXTS) == TEXTS
