"""SQLite's write-ahead log, read as a file: which pages it holds, and whether something is missing from it.

SQLite takes a log that breaks off for one whose last transaction was never finished, and says nothing. A commit was
synced before the next one began, so a break with more than one commit behind it is damage; and so is a log that ends
before the frame up to which its index (the -shm file, which outlives a killed process) says it was committed.
Formats: https://www.sqlite.org/fileformat2.html#walformat and https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint32]]

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = 0x377F0682  # the last bit set: checksums are over big-endian words
INDEX_HEADER_BYTES = 48
BACKFILL_AT = 2 * INDEX_HEADER_BYTES
FRAMES_AT_ONCE = 1024  # 4 MB of pages
MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    page: int
    is_commit: bool
    at: int
    """Where the page's content begins."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """`frames` hold by their own checksums; SQLite reads the first `readable` of them, up to a commit."""

    page_size: int
    data: bytes
    frames: tuple[Frame, ...]
    readable: int
    salt: bytes

    @property
    def lost_commits(self) -> int:
        """Transactions written after the place where SQLite stops reading."""
        return sum(frame.is_commit for frame in self.frames[self.readable :])

    def pages(self) -> dict[int, bytes]:
        """Returns the latest content of every page of a committed transaction, also behind a break that is damage."""
        last = self.readable
        if self.lost_commits > 1:
            last = max(number for number, frame in enumerate(self.frames) if frame.is_commit) + 1
        return {frame.page: self.data[frame.at : frame.at + self.page_size] for frame in self.frames[:last]}


def read_log(path: Path) -> LogFile | None:
    """Returns None where there is no log, or nothing that can be told from garbage."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < HEADER_BYTES:
        return None
    magic, _, page_size = struct.unpack_from(">3I", data)
    is_plausible = 512 <= page_size <= 65536 and page_size & (page_size - 1) == 0
    if magic & ~1 != MAGIC or not is_plausible:
        return None
    return _read_frames(data, page_size, ">" if magic & 1 else "<")


def _read_frames(data: bytes, page_size: int, order: str) -> LogFile:
    import numpy as np  # slow to load for commands that only ask what there is

    step = FRAME_HEADER_BYTES + page_size
    number = (len(data) - HEADER_BYTES) // step
    shape = (number, step // 4)
    fields = np.frombuffer(data, ">u4", number * step // 4, HEADER_BYTES).reshape(shape)[:, :6]
    words = np.frombuffer(data, f"{order}u4", number * step // 4, HEADER_BYTES).reshape(shape)
    salt = np.frombuffer(data, ">u4", 2, 16)
    # Checksums are a chain: each frame is judged by what the one before it claims.
    seeds = np.concatenate([np.frombuffer(data, ">u4", 2, 24).reshape(1, 2), fields[:-1, 4:6]])
    is_sound = (fields[:, 0] > 0) & (fields[:, 2:4] == salt).all(axis=1)
    is_sound &= (_checksums(words, seeds, page_size) == fields[:, 4:6]).all(axis=1)
    is_commit = is_sound & (fields[:, 1] > 0)
    places = np.flatnonzero(is_sound)
    frames = tuple(
        Frame(int(fields[place, 0]), bool(is_commit[place]), HEADER_BYTES + int(place) * step + FRAME_HEADER_BYTES)
        for place in places
    )
    unbroken = number if is_sound.all() else int(np.argmin(is_sound))
    commits = np.flatnonzero(is_commit[:unbroken])
    return LogFile(page_size, data, frames, 0 if len(commits) == 0 else int(commits[-1]) + 1, data[16:24])


def _checksums(words: Words, seeds: Words, page_size: int) -> Words:
    """Returns the (frames, 2) checksums of frames (frames, words), each begun with its own seed (frames, 2).

    Two words at a time, s0 += x0 + s1; s1 += x1 + s0, all modulo 2**32: linear, so one product does a frame.
    """
    import numpy as np

    factors, carried = _factors((8 + page_size) // 8)
    sums = np.empty((len(words), 2), np.uint32)
    for start in range(0, len(words), FRAMES_AT_ONCE):
        part = slice(start, start + FRAMES_AT_ONCE)
        content = np.concatenate([words[part, 0:2], words[part, 6:]], axis=1).astype(np.uint32)
        seed = seeds[part].astype(np.uint32)
        for row in range(2):
            sums[part, row] = (content * factors[row]).sum(axis=1, dtype=np.uint32)
            sums[part, row] += (seed * carried[row]).sum(axis=1, dtype=np.uint32)
    return sums


@cache
def _factors(pairs: int) -> tuple[Words, Words]:
    """Returns what each word counts for in the two sums, (2, words), and what the seed does, (2, 2)."""
    import numpy as np

    factors = np.empty((2, 2 * pairs), np.uint32)
    (a, b), (c, d) = (1, 0), (0, 1)  # a power of ((1, 1), (1, 2)): what a sum becomes while further pairs are added
    for pair in reversed(range(pairs)):
        factors[:, 2 * pair] = (a + b) & MASK, (c + d) & MASK
        factors[:, 2 * pair + 1] = b, d
        (a, b), (c, d) = ((a + b) & MASK, (a + 2 * b) & MASK), ((c + d) & MASK, (c + 2 * d) & MASK)
    return factors, np.array([[a, b], [c, d]], np.uint32)


def damage_of_log(database: Path) -> str | None:
    """Returns what is wrong with a database's log, as far as SQLite would not say; None where nothing is."""
    log_path, index_path = (database.with_name(database.name + suffix) for suffix in ("-wal", "-shm"))
    is_there = log_path.exists() and log_path.stat().st_size > 0
    if is_there and (not database.exists() or database.stat().st_size == 0):
        return "the database file is missing or empty, and its log is not"
    log = read_log(log_path)
    committed = _committed_frames(index_path, None if log is None else log.salt)
    present = 0 if log is None else log.readable
    if present < committed:
        return f"the log holds {present} of {committed} frames that were committed"
    if log is not None and log.lost_commits > 1:
        return f"the log is damaged in front of {log.lost_commits} transactions"
    return None


def _committed_frames(index_path: Path, salt: bytes | None) -> int:
    """Returns how many frames of the log were committed and not yet all copied into the database, by its index."""
    try:
        data = index_path.read_bytes()[: BACKFILL_AT + 4]
    except OSError:
        return 0
    if len(data) < BACKFILL_AT + 4 or data[:INDEX_HEADER_BYTES] != data[INDEX_HEADER_BYTES:BACKFILL_AT] or not data[12]:
        return 0
    if salt is not None and data[32:40] != salt:
        return 0  # another log's
    (committed,) = struct.unpack_from("=I", data, 16)
    (copied,) = struct.unpack_from("=I", data, BACKFILL_AT)
    return committed if copied < committed else 0
