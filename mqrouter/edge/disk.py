"""The disk below data_dir: how much is free, and a file of ballast to throw off when nothing is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import structlog

from mqrouter.core.disk_space import DiskSpace, Thresholds

log = structlog.get_logger("disk")

START_BYTES = 4 << 20
"""What opening a database may need at once: its log, the log's index, the lock."""


def space_at(folder: Path) -> DiskSpace:
    """Returns the space of the file system that holds `folder`, or would. Raises OSError."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    found = os.statvfs(place)
    return DiskSpace(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def ballast_path(data_dir: Path) -> Path:
    return data_dir / "ballast"


class Disk:
    """`thresholds` are those configured, fitted to the file system when it is first looked at."""

    def __init__(self, data_dir: Path, thresholds: Thresholds) -> None:
        self._data_dir = data_dir
        self._configured = thresholds
        self._ballast = ballast_path(data_dir)

    @property
    def thresholds(self) -> Thresholds:
        return self._configured.fitted(self.space().total)

    @property
    def ballast_bytes(self) -> int:
        return self._ballast.stat().st_size if self._ballast.exists() else 0

    def space(self) -> DiskSpace:
        return space_at(self._data_dir)

    def make_room(self) -> None:
        """A start on a full disk needs a little: the ballast gives it."""
        thresholds = self.thresholds
        if thresholds != self._configured:
            log.warning(
                "disk.thresholds_lowered",
                total_bytes=self.space().total,
                soft_free_bytes=thresholds.soft,
                hard_free_bytes=thresholds.hard,
                ballast_bytes=thresholds.ballast,
            )
        if self.space().free < min(START_BYTES, thresholds.hard):
            self.release_ballast()

    def release_ballast(self) -> bool:
        """Returns whether there was any."""
        try:
            self._ballast.unlink()
        except FileNotFoundError:
            return False
        log.warning("disk.ballast_released", free_bytes=self.space().free)
        return True

    def keep_ballast(self) -> bool:
        """Its blocks are taken; False where the disk has no room for them, and as it was."""
        try:
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.thresholds.ballast)
        except OSError as error:
            with suppress(OSError):
                self._ballast.unlink()
            log.warning("disk.ballast_failed", error=str(error))
            return False
        return True
