"""Embeddings of any text, kept on disk for the commands that need thousands of them; one file per model and prefix."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Embed = Callable[[str], Awaitable[Matrix]]
Progress = Callable[[int, int], None]

KEY_BYTES = 32
SAVED_EVERY = 500


class VectorCache:
    """`folder` is made when there is something to write. The file only grows: each record a text's hash and vector.

    A file that a crash cut short is dropped at the next writing: it can always be made again.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._name = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]

    async def embed_all(
        self, texts: Sequence[str], embed: Embed, progress: Progress = lambda done, total: None
    ) -> Matrix:
        """Returns (texts, dim), float32; only the texts that are not on disk are embedded. Raises OSError."""
        known = self._load()
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        fresh: dict[bytes, Matrix] = {}
        for number, (key, text) in enumerate(missing.items()):
            if number % 50 == 0:
                progress(number, len(missing))
            fresh[key] = known[key] = await embed(text)
            if len(fresh) == SAVED_EVERY:
                self._append(fresh)
                fresh = {}
        self._append(fresh)
        progress(len(missing), len(missing))
        return np.stack([known[key] for key in keys])

    def _load(self) -> dict[bytes, Matrix]:
        known: dict[bytes, Matrix] = {}
        for path in sorted(self._folder.glob(f"{self._name}-*.vectors")):
            records = np.fromfile(path, dtype=_record(int(path.stem.rpartition("-")[2])))
            known.update(zip((bytes(key) for key in records["key"]), records["vector"], strict=True))
        return known

    def _append(self, vectors: dict[bytes, Matrix]) -> None:
        if not vectors:
            return
        dim = len(next(iter(vectors.values())))
        records = np.empty(len(vectors), dtype=_record(dim))
        records["key"] = [np.void(key) for key in vectors]
        records["vector"] = list(vectors.values())
        path = self._folder / f"{self._name}-{dim}.vectors"
        self._folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size % records.dtype.itemsize:
            path.unlink()
        with path.open("ab") as file:
            file.write(records.tobytes())


def _record(dim: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"V{KEY_BYTES}"), ("vector", np.float32, (dim,))])
