"""The gateway's own time: it never jumps, whatever is done to the machine's clock, and goes on across restarts.

Everything stored carries this time. Within one boot of the machine it follows the clock that counts since the boot.
Across boots only the wall clock can tell how long the machine was off, and it is believed only where what it says is
plausible: a board without a battery wakes up in 1970, and nothing may expire on the strength of that.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_OFF_MS = 31 * 86_400_000
"""Longer than this a gateway is not believed to have been switched off: then its clock is wrong."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The machine's clocks at one moment, milliseconds."""

    wall_ms: int
    since_boot_ms: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The gateway's time at one moment of the machine's clocks."""

    now_ms: int
    clocks: Clocks

    @property
    def offset_ms(self) -> int:
        """What the wall clock shows more than the gateway's time."""
        return self.clocks.wall_ms - self.now_ms


@dataclass(frozen=True, slots=True)
class Now:
    """The gateway's time, and what the wall clock shows more than it: to show a stored time, add that."""

    ms: int
    offset_ms: int = 0


def resume(anchor: Anchor | None, latest_ms: int, clocks: Clocks) -> int:
    """Returns the gateway's time now; `latest_ms` is the latest moment anything is known to have happened at."""
    if anchor is None:
        return max(latest_ms, clocks.wall_ms)
    if anchor.clocks.boot_id == clocks.boot_id:
        passed_ms = clocks.since_boot_ms - anchor.clocks.since_boot_ms
        return max(latest_ms, anchor.now_ms + passed_ms)
    known_ms = max(latest_ms, anchor.now_ms)
    by_wall_ms = anchor.now_ms + clocks.wall_ms - anchor.clocks.wall_ms
    return by_wall_ms if known_ms <= by_wall_ms <= known_ms + MAX_OFF_MS else known_ms
