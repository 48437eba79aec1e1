"""The embedding model on a thread of its own: llama.cpp releases the GIL during a call, so the loop stays free."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from mqrouter.errors import MqrouterError
from mqrouter.routing.signals import Embedding

MAX_CHARS_PER_TOKEN = 16  # far above any language's average
SPECIAL_TOKENS = 2  # opening and closing
NICENESS = 5  # acknowledging a question goes before deciding another


class EmbeddingModel(Protocol):
    """The part of `llama_cpp.Llama` that is used."""

    def tokenize(self, text: bytes) -> list[int]: ...

    def embed(self, input: str, *, normalize: bool, truncate: bool, return_count: bool) -> Any: ...


class EmbeddingError(MqrouterError):
    """Answer `internal`: the model could not embed this text."""


class LlamaEmbedder:
    """`load` runs on the model's own thread, as does every call after it."""

    def __init__(self, load: Callable[[], EmbeddingModel], *, query_prefix: str, max_tokens: int) -> None:
        self._load = load
        self._prefix = query_prefix
        self._max_tokens = max_tokens
        self._thread = ThreadPoolExecutor(1, "embedder", os.nice, (NICENESS,))  # of this thread alone, on Linux
        self._model: EmbeddingModel | None = None

    @property
    def model(self) -> EmbeddingModel:
        """The model itself, for measuring against it."""
        assert self._model is not None, "start() has not been awaited"
        return self._model

    async def start(self) -> None:
        """The model is loaded and warm. Raises what `load` raises."""
        self._model = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        await self.embed("warm-up")

    async def embed(self, text: str) -> Embedding:
        """Returns the embedding of a question, cut to what the model reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, self._prefix + text)

    async def close(self) -> None:
        """The thread has ended. A call under way finishes first: llama.cpp cannot be interrupted."""
        self._model = None
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _embed(self, text: str) -> Embedding:
        model = self.model
        try:
            fitting = self._fitting(model, text)
            values, tokens = model.embed(fitting, normalize=True, truncate=True, return_count=True)
        except (RuntimeError, ValueError) as error:
            # Not its words: llama-cpp-python quotes the text it could not take.
            raise EmbeddingError(f"the embedding model failed: {type(error).__name__}") from None
        vector = np.asarray(values, dtype=np.float32)
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise EmbeddingError(f"the embedding model returned {vector.shape} values that cannot be used")
        return Embedding(vector, tokens, is_cut=len(fitting) < len(text))

    def _fitting(self, model: EmbeddingModel, text: str) -> str:
        """Returns as much of the text as the model reads: llama.cpp itself would cut off the closing token too."""
        if len(text) <= self._max_tokens - SPECIAL_TOKENS:  # a token is at least one character
            return text
        text = text[: self._max_tokens * MAX_CHARS_PER_TOKEN]
        while (tokens := len(model.tokenize(text.encode()))) > self._max_tokens:
            text = text[: min(len(text) - 1, len(text) * self._max_tokens // tokens)]
        return text
