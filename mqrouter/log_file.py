"""The log in a file of its own: begun anew at a size and with each day, and bounded in age and number."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STAMP = "%Y%m%dT%H%M%S"  # local time, as the days are
_STAMPED = re.compile(r"\.\d{8}T\d{6}(-\d+)?")


@dataclass(frozen=True, slots=True)
class LogLimits:
    max_bytes: int
    """Of one file; only a single line longer than this makes a file longer."""
    keep_days: int
    keep_files: int
    """Besides the one being written."""


class LogFile:
    """What `structlog.WriteLogger` writes to, from any thread.

    A file that was moved away or cut by others is gone on with. A disk that takes no more loses lines and says so on
    stderr, once until it takes them again: the daemon goes on.
    """

    def __init__(self, path: Path, limits: LogLimits, *, now_s: Callable[[], float] = time.time) -> None:
        """Raises OSError where the file cannot be opened."""
        self.path = path
        self.limits = limits
        self._now_s = now_s
        self._lock = threading.Lock()
        self._lost = 0
        self._is_torn = False
        self._is_closed = False
        self._fd: int | None = None
        self._open()
        self._prune()

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._is_closed:  # another took over while this line was on its way
                return len(text)
            try:
                self._turn_over(len(data))
                self._append(data)
            except OSError as error:
                self._lose(error)
            else:
                self._found_again()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._day = self._day_of(os.fstat(self._fd).st_mtime if os.fstat(self._fd).st_size else self._now_s())

    def _append(self, data: bytes) -> None:
        assert self._fd is not None  # opened by `_turn_over`
        whole = b"\n" + data if self._is_torn else data
        written = os.write(self._fd, whole)
        self._is_torn = written < len(whole)
        if self._is_torn:
            raise OSError(f"only {written} of {len(whole)} bytes could be written")

    def _turn_over(self, more: int) -> None:
        """The file that is open is ours, of today, and has room for `more` bytes."""
        size = self._size()
        if size is None:  # moved away or deleted: by logrotate, or by hand
            self._let_go()
            self._open()
        elif size and (size + more > self.limits.max_bytes or self._day != self._day_of(self._now_s())):
            self.path.rename(self._free_name())
            self._let_go()
            self._open()
            self._prune()

    def _size(self) -> int | None:
        """Returns the bytes in the file; None where its name leads to another one, or nowhere."""
        if self._fd is None:
            return None
        try:
            there, ours = self.path.stat(), os.fstat(self._fd)
        except FileNotFoundError:
            return None
        return ours.st_size if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) else None

    def _free_name(self) -> Path:
        name = f"{self.path.name}.{time.strftime(_STAMP, time.localtime(self._now_s()))}"
        found, number = self.path.with_name(name), 0
        while found.exists():
            number += 1
            found = self.path.with_name(f"{name}-{number}")
        return found

    def _prune(self) -> None:
        """Only what a turn-over named is deleted; what cannot be deleted is left to the next time."""
        with suppress(OSError):
            begin = len(self.path.name)
            beside = self.path.parent.glob(f"{_literally(self.path.name)}.*")
            ours = [path for path in beside if _STAMPED.fullmatch(path.name[begin:])]
            newest_first = sorted(ours, key=lambda path: (path.stat().st_mtime_ns, _order(path)), reverse=True)
            oldest_s = self._now_s() - 86_400 * self.limits.keep_days
            for place, path in enumerate(newest_first):
                if place >= self.limits.keep_files or path.stat().st_mtime < oldest_s:
                    path.unlink()

    def _lose(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1:
            _say(f"the log file {self.path} takes no more: {error}")

    def _found_again(self) -> None:
        if self._lost:
            _say(f"{self._lost} lines were not written to {self.path}")
        self._lost = 0

    @staticmethod
    def _day_of(at_s: float) -> tuple[int, int]:
        local = time.localtime(at_s)
        return local.tm_year, local.tm_yday


def _say(text: str) -> None:
    """To stderr, where whoever started the daemon looks when its log is silent."""
    sys.stderr.write(f"mqrouter: {text}\n")
    sys.stderr.flush()


def _literally(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _order(path: Path) -> tuple[str, int]:
    """Of two turned over within a second the one with the higher number is the later."""
    stamp, _, number = path.name.rpartition(".")[2].partition("-")
    return stamp, int(number or 0)
