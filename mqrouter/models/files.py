"""Files that survive a power cut: hashed, synced, and renamed into place as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mqrouter.errors import ModelFileError


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_into_place(part: Path, target: Path) -> None:
    """`target` has the content of `part`, wholly, even after a power cut; `part` is gone."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _sync_folder(target.parent)


def write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sync_into_place(part, path)


def read_json_table(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one where the file is missing, unreadable or torn."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Nobody else changes the models in `folder` meanwhile; the lock dies with its process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise ModelFileError(
            f"{folder}: cannot be written ({error.strerror}): mend its owner, or choose another --models-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelFileError(f"{folder}: another `mqrouter models` is at work here; wait for it") from error
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
