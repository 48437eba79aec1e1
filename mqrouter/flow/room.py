"""Stage 6, room: the disk is watched, the database kept to its size, and a full disk made usable again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog

from mqrouter.core.disk_space import DiskLevel
from mqrouter.errors import StoreError, StoreFatalError, StoreFullError
from mqrouter.flow.ports import Clock, DatabaseSize, Disk, Space, Store
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("disk")

LOOK_EVERY_S = 1.0
RELIEVE_EVERY_S = 10.0
STEPS = (400, 40, 4)
"""Rows, or pages, of one transaction: fewer where the disk has no room for that many changes."""
WORK_S = 2.0
"""How long one order of an operator may keep the daemon busy before it reports."""
KEEP_SIZE_S = 0.5
KEPT_UNUSED_SHARE = 10  # one page in so many may be unused before the file shrinks: they are soon used again


class Room:
    """`full` is given whenever the disk took no more. `level` is that of the last look."""

    def __init__(
        self, store: Store, space: Space, disk: Disk, clock: Clock, *, retain_bytes: int, keep_ms: int, full: Wakeup
    ) -> None:
        self._store = store
        self._space = space
        self._disk = disk
        self._clock = clock
        self._retain_bytes = retain_bytes
        self._keep_ms = keep_ms
        """A full disk costs no finished request that is younger: duplicates of it may come."""
        self._full = full
        self._relieve_at_s = 0.0
        self._is_over = False
        self.level = DiskLevel.ENOUGH

    async def run(self) -> None:
        is_full = False
        while True:
            try:
                await self._tick(is_full=is_full)
            except StoreFatalError:
                raise
            except (StoreError, OSError) as error:
                log.error("disk.upkeep_failed", error=str(error))
            is_full = await self._full.wait(LOOK_EVERY_S)
            if self._clock.monotonic_s() < self._relieve_at_s:  # what was done needs its time, and calls come at once
                await asyncio.sleep(LOOK_EVERY_S)

    async def purge(self, older_than_ms: int) -> dict[str, Any]:
        """Deletes finished requests by an operator's order, for WORK_S at most: `is_done` says whether any is left."""
        if self.level is DiskLevel.FULL:
            self._disk.release_ballast()
            await self._checkpoint()
        before_ms = self._clock.now_ms() - older_than_ms
        until_s = self._clock.monotonic_s() + WORK_S
        purged, is_done = 0, False
        while not is_done and self._clock.monotonic_s() < until_s:
            deleted = await self._purged(before_ms, before_ms)
            purged += deleted
            is_done = deleted == 0
        log.warning("queue.purged", requests=purged, older_than_s=older_than_ms / 1000, by="operator")
        if self.level is not DiskLevel.ENOUGH:
            await self._shrink_until(until_s)
        self._look()
        return {"purged": purged, "is_done": is_done}

    async def vacuum(self) -> dict[str, Any]:
        """Gives unused pages back by an operator's order, for WORK_S at most."""
        before = await self._space.size()
        after = await self._shrink_until(self._clock.monotonic_s() + WORK_S)
        freed = before.unused - after.unused
        log.info("disk.vacuumed", freed_bytes=freed, unused_bytes=after.unused, by="operator")
        is_done = after.unused == 0 or not after.can_shrink
        return {"freed_bytes": freed, "unused_bytes": after.unused, "can_shrink": after.can_shrink, "is_done": is_done}

    def report(self) -> dict[str, Any]:
        space, thresholds = self._disk.space(), self._disk.thresholds
        return {
            "level": str(self.level),
            "free_bytes": space.free,
            "total_bytes": space.total,
            "soft_free_bytes": thresholds.soft,
            "hard_free_bytes": thresholds.hard,
            "ballast_bytes": self._disk.ballast_bytes,
        }

    async def _tick(self, *, is_full: bool) -> None:
        before = self.level
        self._look()
        if self.level is not before and self.level is not DiskLevel.ENOUGH:
            await self._checkpoint()  # while there is room for what the log holds
        if is_full and self._clock.monotonic_s() >= self._relieve_at_s:
            self._relieve_at_s = self._clock.monotonic_s() + RELIEVE_EVERY_S
            await self._relieve()
        await self._keep_to_size()

    def _look(self) -> None:
        space, thresholds = self._disk.space(), self._disk.thresholds
        level = thresholds.level(space)
        if level is not self.level:
            tell = log.info if level is DiskLevel.ENOUGH else log.error
            tell("disk.level_changed", level=str(level), was=str(self.level), free_bytes=space.free)
            self.level = level
        if self._disk.ballast_bytes < thresholds.ballast and thresholds.has_room_for_ballast(space):
            self._disk.keep_ballast()

    async def _relieve(self) -> None:
        """The disk took no more: the ballast goes, then what nobody will ask for, until answers can be written."""
        is_released = self._disk.release_ballast()
        log.error("disk.full", free_bytes=self._disk.space().free, is_ballast_released=is_released)
        await self._checkpoint()
        now_ms = self._clock.now_ms()
        while purged := await self._purged(now_ms - self._keep_ms, now_ms):
            log.warning("disk.requests_purged", requests=purged, why="full")
            self._look()
            if self.level is not DiskLevel.FULL:
                return

    async def _purged(self, finished_before_ms: int, refused_before_ms: int) -> int:
        """One step, as large as the disk lets it be; what it freed is given back."""
        for rows in STEPS:
            try:
                purged = await self._store.purge(finished_before_ms, refused_before_ms, rows)
            except StoreFullError:
                if rows == STEPS[-1]:
                    raise
            else:
                break
            await self._checkpoint()
        await self._shrink()
        return purged

    async def _shrink_until(self, until_s: float) -> DatabaseSize:
        """Gives unused pages back until none is left, or it is time; returns the size then."""
        size = await self._space.size()
        while size.unused and size.can_shrink and self._clock.monotonic_s() < until_s:
            await self._shrink()
            size = await self._space.size()
        await self._checkpoint()
        return size

    async def _shrink(self) -> None:
        for pages in STEPS:
            try:
                await self._space.shrink(pages)
            except StoreFullError:
                if pages == STEPS[-1]:
                    raise
            else:
                break
            await self._checkpoint()
        if self.level is not DiskLevel.ENOUGH:
            await self._checkpoint()  # only then has the file become smaller

    async def _keep_to_size(self) -> None:
        """Down to `retain_bytes`, for a slice of time: the requests that ended first go first."""
        until_s = self._clock.monotonic_s() + KEEP_SIZE_S
        size = await self._space.size()
        while size.used > self._retain_bytes:
            now_ms = self._clock.now_ms()
            purged = await self._store.purge(now_ms + 1, now_ms + 1, STEPS[0])
            if purged:
                log.info("disk.requests_purged", requests=purged, why="retain_bytes")
            elif not self._is_over:
                log.warning("disk.over_retain_bytes", used_bytes=size.used, retain_bytes=self._retain_bytes)
            self._is_over = not purged
            if not purged or self._clock.monotonic_s() >= until_s:
                return
            size = await self._space.size()
        if size.can_shrink and size.unused > (size.used + size.unused) // KEPT_UNUSED_SHARE:
            await self._shrink()

    async def _checkpoint(self) -> None:
        with suppress(StoreFullError):  # the log gives its room back as far as the database has some
            await self._space.checkpoint()
