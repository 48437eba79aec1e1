"""How much room the disk has left, and what that means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

SOFT_SHARE, HARD_SHARE, BALLAST_SHARE = 5, 20, 10  # one in so many bytes of the file system, at most


class DiskLevel(StrEnum):
    ENOUGH = "enough"
    LOW = "low"  # nothing new is taken; each refusal is answered
    FULL = "full"  # nothing is acknowledged: the broker keeps what comes


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Of the file system the database is on, bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Free bytes below which the disk is low, and full; and how large the reserve is that a full disk gives back."""

    soft: int
    hard: int
    ballast: int

    def fitted(self, total: int) -> Thresholds:
        """Returns these, or what a file system of `total` bytes can do: a small one is not full from the start."""
        return replace(
            self,
            soft=min(self.soft, total // SOFT_SHARE),
            hard=min(self.hard, total // HARD_SHARE),
            ballast=min(self.ballast, total // BALLAST_SHARE),
        )

    def level(self, space: DiskSpace) -> DiskLevel:
        if space.free < self.hard:
            return DiskLevel.FULL
        return DiskLevel.LOW if space.free < self.soft else DiskLevel.ENOUGH

    def has_room_for_ballast(self, space: DiskSpace) -> bool:
        return self.ballast > 0 and space.free >= self.soft + self.ballast
