"""A clock that a test moves while the daemon lives: libfaketime in front of the daemon, an offset in a file.

`time` moves all of the daemon's clocks together: hours pass in a moment, and every timer whose time came is due.
`wall` moves the wall clock alone: somebody set it, and no time has passed.

What libfaketime 0.9.10 does, measured: CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW move along with CLOCK_MONOTONIC. With
`time`, the monotonic clocks count from 1970 as the wall clock does, so a thread's *timed* wait (`Event.wait(1.0)`)
never ends; the daemon has none. A wait in epoll is not cut short: a jump is seen at the loop's next wake-up, which is
a tick of the loop's own monitor, within 50 ms.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tracing import give_up_without

LIBRARY_PLACES = ("usr/lib/*/faketime/libfaketimeMT.so.1", "usr/lib*/faketime/libfaketimeMT.so.1")
# Without the second, every thread that waits for the interpreter lock spins; in the other mode it would never get it.
WALL_ONLY = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
SHARED_MEMORY = Path("/dev/shm")

YEAR_S = 365 * 86_400.0


class MovedClock:
    """One clock for all lives of one daemon: start each with `env`."""

    def __init__(self, folder: Path, moves: Literal["time", "wall"]) -> None:
        self._file = folder / "clock-offset"
        self.moved_s = 0.0
        self.env: Mapping[str, str] = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",  # files keep the times they have
        } | (WALL_ONLY if moves == "wall" else {})
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def move(self, by_s: float) -> None:
        """The daemon's clock, and that of its next life, reads `by_s` more from now on; less where negative."""
        self.moved_s += by_s
        self._write()

    def wall_s(self) -> float:
        """Returns what the daemon takes for the time of day, seconds since 1970."""
        return time.time() + self.moved_s

    def clean(self, pid: int) -> None:
        """Removes what the library leaves behind in shared memory where its process was killed."""
        for name in (f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"):
            with contextlib.suppress(FileNotFoundError):
                (SHARED_MEMORY / name).unlink()

    def _write(self) -> None:
        """At once: the daemon reads the file at every look at a clock, and must not find half of it."""
        ready = self._file.with_suffix(".new")
        ready.write_text(f"{self.moved_s:+.3f}\n", encoding="ascii")
        ready.replace(self._file)


def _library() -> Path:
    found = next((path for place in LIBRARY_PLACES for path in Path("/").glob(place)), None)
    if found is None:
        give_up_without("libfaketime is missing: install the package libfaketime")
    assert found is not None
    return found
