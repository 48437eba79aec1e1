"""Questions become vectors of unit length, on a thread of their own, and a cut is never silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mqrouter import settings, wiring
from mqrouter.edge.embedder import EmbeddingError, LlamaEmbedder

MAX_TOKENS = 8


class FakeModel:
    """One token per word and two around them, as BERT's tokenizers add."""

    def __init__(self, values: Sequence[float] | None = None, error: Exception | None = None) -> None:
        self.values = [1.0, 0.0] if values is None else values
        self.error = error
        self.embedded: list[str] = []
        self.threads: set[str] = set()

    def tokenize(self, text: bytes) -> list[int]:
        return list(range(len(text.split()) + 2))

    def embed(self, input: str, *, normalize: bool, truncate: bool, return_count: bool) -> Any:
        assert (normalize, truncate, return_count) == (True, True, True)
        self.threads.add(threading.current_thread().name)
        self.embedded.append(input)
        if self.error is not None and input != "q: warm-up":
            raise self.error
        return (self.values, min(len(self.tokenize(input.encode())), MAX_TOKENS))


async def started(model: FakeModel) -> LlamaEmbedder:
    embedder = LlamaEmbedder(lambda: model, query_prefix="q: ", max_tokens=MAX_TOKENS)
    await embedder.start()
    return embedder


async def test_model_is_warm_after_the_start_and_called_on_one_thread() -> None:
    model = FakeModel()
    embedder = await started(model)
    await asyncio.gather(*(embedder.embed(str(n)) for n in range(10)))
    await embedder.close()
    assert model.embedded[0] == "q: warm-up"
    assert len(model.threads) == 1
    assert "embedder" in model.threads.pop()


async def test_prefix_is_put_before_a_question() -> None:
    model = FakeModel()
    embedder = await started(model)
    found = await embedder.embed("wet?")
    await embedder.close()
    assert (model.embedded[-1], found.tokens, found.is_cut) == ("q: wet?", 4, False)
    assert found.vector.dtype == np.float32


@pytest.mark.parametrize(("words", "is_cut"), [(5, False), (6, True), (500, True)])
async def test_long_question_is_cut_and_says_so(words: int, is_cut: bool) -> None:
    model = FakeModel()
    embedder = await started(model)
    found = await embedder.embed(" ".join(["pump"] * words))
    await embedder.close()
    assert found.is_cut is is_cut
    assert len(model.tokenize(model.embedded[-1].encode())) <= MAX_TOKENS
    assert found.tokens == min(words + 3, MAX_TOKENS)


@pytest.mark.parametrize("values", [[float("nan"), 1.0], [float("inf")], [[1.0, 0.0]]])
async def test_unusable_vector_is_an_error(values: Any) -> None:
    model = FakeModel()
    embedder = await started(model)
    model.values = values
    with pytest.raises(EmbeddingError, match="cannot be used"):
        await embedder.embed("wet?")
    await embedder.close()


@pytest.mark.parametrize("error", [RuntimeError("llama_decode returned -1"), ValueError("bad")])
async def test_failure_of_the_model_is_translated(error: Exception) -> None:
    embedder = await started(FakeModel(error=error))
    with pytest.raises(EmbeddingError, match="failed"):
        await embedder.embed("wet?")
    await embedder.close()


async def test_model_that_cannot_be_loaded_says_why() -> None:
    def load() -> FakeModel:
        raise LookupError("no such file")

    embedder = LlamaEmbedder(load, query_prefix="", max_tokens=8)
    with pytest.raises(LookupError, match="no such file"):
        await embedder.start()
    await embedder.close()


@pytest.fixture
async def real() -> AsyncIterator[LlamaEmbedder]:
    folder = Path("~/.local/share/mqrouter/models").expanduser()
    configured = settings.Settings(gateway=settings.Gateway(models_dir=folder))
    embedder, _ = wiring.embedder(configured)
    await embedder.start()
    yield embedder
    await embedder.close()


@pytest.mark.real_model
async def test_real_vectors_have_unit_length_and_mean_something(real: LlamaEmbedder) -> None:
    cow, calf, code = [
        await real.embed(text)
        for text in ("The cow has a fever.", "My calf is ill and hot.", "Write a Python function that sorts a list.")
    ]
    assert cow.vector.shape == (384,)
    for found in (cow, calf, code):
        assert float(np.linalg.norm(found.vector)) == pytest.approx(1.0, abs=1e-4)
        assert not found.is_cut
    assert float(cow.vector @ calf.vector) > 2 * float(cow.vector @ code.vector)
    again = await real.embed("The cow has a fever.")
    assert np.array_equal(cow.vector, again.vector)


@pytest.mark.real_model
async def test_real_model_reads_its_limit_and_flags_the_rest(real: LlamaEmbedder) -> None:
    fits = await real.embed("cow " * 254)
    assert (fits.tokens, fits.is_cut) == (256, False)
    cut = await real.embed("cow " * 255)
    assert (cut.tokens, cut.is_cut) == (256, True)
    odd = await real.embed("\N{COW}\0\u200b" * 3000 + "x" * 100_000)
    assert odd.is_cut
    assert float(np.linalg.norm(odd.vector)) == pytest.approx(1.0, abs=1e-4)
