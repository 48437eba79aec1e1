"""How much room is enough."""

from __future__ import annotations

import pytest

from mqrouter.core.disk_space import DiskLevel, DiskSpace, Thresholds

MB = 1 << 20
DEFAULTS = Thresholds(soft=256 * MB, hard=64 * MB, ballast=8 * MB)


@pytest.mark.parametrize(
    ("free", "level"),
    [(256, DiskLevel.ENOUGH), (255, DiskLevel.LOW), (64, DiskLevel.LOW), (63, DiskLevel.FULL), (0, DiskLevel.FULL)],
)
def test_level_follows_free_space(free: int, level: DiskLevel) -> None:
    assert DEFAULTS.level(DiskSpace(32_000 * MB, free * MB)) is level


def test_large_file_system_keeps_what_is_configured() -> None:
    assert DEFAULTS.fitted(4000 * MB) == DEFAULTS


@pytest.mark.parametrize("total", [1, 16, 64, 200])
def test_small_file_system_is_not_full_from_the_start(total: int) -> None:
    fitted = DEFAULTS.fitted(total * MB)
    empty = DiskSpace(total * MB, total * MB)
    assert fitted.level(empty) is DiskLevel.ENOUGH
    assert fitted.has_room_for_ballast(empty)
    assert fitted.hard < fitted.soft


def test_zero_switches_off() -> None:
    off = Thresholds(0, 0, 0)
    assert off.level(DiskSpace(100, 0)) is DiskLevel.ENOUGH
    assert not off.has_room_for_ballast(DiskSpace(100, 100))


def test_ballast_waits_for_more_than_its_own_room() -> None:
    assert not DEFAULTS.has_room_for_ballast(DiskSpace(4000 * MB, 256 * MB))
    assert DEFAULTS.has_room_for_ballast(DiskSpace(4000 * MB, 264 * MB))
