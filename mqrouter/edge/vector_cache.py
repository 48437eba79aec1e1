"""Embeddings of any text, kept on disk for the commands that need thousands of them: those of one model and prefix."""

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
MAX_BYTES = 64_000_000
"""Some 40,000 texts of 384 dimensions; all of it is read at each use."""
LEFT_OF_FULL = 0.75  # a full file is cut to this share, so that not every writing rewrites it


class VectorCache:
    """`folder` is made when there is something to write; each record of its file is a text's hash and vector.

    Writing drops the files of other models, and from a file of more than `max_bytes` the texts asked for longest ago.
    A file that a crash cut short is dropped at the next writing: it can always be made again.
    """

    def __init__(self, folder: Path, fingerprint: str, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
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
        if missing:
            self._tidy(known, keys)
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
        records, path = _records(vectors), self._path(vectors)
        self._folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size % records.dtype.itemsize:
            path.unlink()
        with path.open("ab") as file:
            file.write(records.tobytes())

    def _tidy(self, known: dict[bytes, Matrix], used: Sequence[bytes]) -> None:
        """Other models' files are gone, and what is too much of this one's: the texts in `used` are the newest."""
        path = self._path(known)
        for other in self._folder.glob("*.vectors"):
            if other != path:
                other.unlink(missing_ok=True)
        if path.stat().st_size <= self._max_bytes:
            return
        newest = dict.fromkeys(used)
        ordered = [key for key in known if key not in newest] + list(newest)
        count = max(1, int(LEFT_OF_FULL * self._max_bytes) // _record(len(known[ordered[0]])).itemsize)
        part = path.with_suffix(".part")
        part.write_bytes(_records({key: known[key] for key in ordered[-count:]}).tobytes())
        part.replace(path)

    def _path(self, vectors: dict[bytes, Matrix]) -> Path:
        return self._folder / f"{self._name}-{len(next(iter(vectors.values())))}.vectors"


def _records(vectors: dict[bytes, Matrix]) -> npt.NDArray[np.void]:
    records = np.empty(len(vectors), dtype=_record(len(next(iter(vectors.values())))))
    records["key"] = [np.void(key) for key in vectors]
    records["vector"] = list(vectors.values())
    return records


def _record(dim: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"V{KEY_BYTES}"), ("vector", np.float32, (dim,))])
