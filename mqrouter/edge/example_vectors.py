"""Embeddings of the configured examples, kept on disk: a restart need not embed hundreds of sentences again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

log = structlog.get_logger("embedder")

Matrix = npt.NDArray[np.float32]


class ExampleVectors:
    """`fingerprint` names the model and its prefix: vectors made under another one are dropped."""

    def __init__(self, path: Path, fingerprint: str, *, is_read_only: bool = False) -> None:
        self._path = path
        self.fingerprint = fingerprint
        self._is_read_only = is_read_only
        self._known: dict[str, Matrix] = {}

    async def embed_all(self, texts: Sequence[str], embed: Callable[[str], Awaitable[Matrix]]) -> Matrix:
        """Returns (texts, dim), float32, unit length; embeds those not on disk, and writes the file anew if any was."""
        if not self._known:
            self._known = self._load()
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in self._known]
        for key, text in missing:
            self._known[key] = await embed(text)
        if missing and not self._is_read_only:
            log.info("embedder.examples_embedded", examples=len(missing))
            self._known = {key: self._known[key] for key in keys}  # what left the configuration leaves the file
            self._save()
        return np.stack([self._known[key] for key in keys])

    def _load(self) -> dict[str, Matrix]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                if str(file["fingerprint"]) != self.fingerprint:
                    return {}
                return dict(zip(map(str, file["keys"]), file["vectors"], strict=True))
        except FileNotFoundError:
            return {}
        except Exception as error:  # damaged in any way: it can always be made again
            log.warning("embedder.example_vectors_unreadable", path=str(self._path), error=str(error))
            return {}

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    fingerprint=np.array(self.fingerprint),
                    keys=np.array(list(self._known)),
                    vectors=np.stack(list(self._known.values())),
                )
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            log.warning("embedder.example_vectors_not_written", path=str(self._path), error=str(error))
