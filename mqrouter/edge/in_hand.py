"""Which requests this process is working on, in a form that survives its end, though not the machine's.

A small file in data_dir: a kill leaves what was written to it, and nothing is ever synced to the disk for it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

SLOTS = 64
_SLOT = struct.Struct("<q")


class InHandFile:
    """Use as a context manager; `found` are the requests an earlier life did not get out of its hands.

    `was_left` says that it did not come to an end of its own, not even to one by an error: it was killed, or crashed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slots: dict[int, int] = {}
        self._free = list(reversed(range(SLOTS)))
        self.found: list[int] = []
        self.was_left = False

    def __enter__(self) -> InHandFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.was_left = self._path.exists()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = os.read(self._file, SLOTS * _SLOT.size)
        content = content[: len(content) - len(content) % _SLOT.size]
        self.found = [seq for (seq,) in _SLOT.iter_unpack(content) if seq > 0]
        os.truncate(self._file, 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def take(self, seq: int) -> None:
        """More than `SLOTS` at once are not noted: nobody takes so many."""
        if self._free:
            self._slots[seq] = self._free.pop()
            self._write(self._slots[seq], seq)

    def drop(self, seq: int) -> None:
        slot = self._slots.pop(seq, None)
        if slot is not None:
            self._write(slot, 0)
            self._free.append(slot)

    def _write(self, slot: int, seq: int) -> None:
        with contextlib.suppress(OSError):  # without it, a crash only goes unexplained
            os.pwrite(self._file, _SLOT.pack(seq), slot * _SLOT.size)
