"""The disk as it is, and the ballast on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqrouter.core.disk_space import DiskSpace, Thresholds
from mqrouter.edge.disk import Disk, ballast_path, space_at


def test_space_of_a_folder_to_be_is_that_of_its_file_system(tmp_path: Path) -> None:
    here, there = space_at(tmp_path), space_at(tmp_path / "not" / "yet")
    assert here.total == there.total > here.free > 0


def test_ballast_takes_its_blocks_and_gives_them_back(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Thresholds(0, 0, 1 << 20))
    assert disk.keep_ballast()
    assert disk.ballast_bytes == 1 << 20
    assert 512 * ballast_path(tmp_path).stat().st_blocks >= 1 << 20  # not a hole
    assert disk.release_ballast()
    assert not disk.release_ballast()
    assert disk.ballast_bytes == 0


def test_ballast_that_does_not_fit_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", fail)
    assert not Disk(tmp_path, Thresholds(0, 0, 1 << 20)).keep_ballast()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "is_released"), [(0, True), (4 << 20, False)])
def test_start_on_a_full_disk_throws_the_ballast_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, is_released: bool
) -> None:
    disk = Disk(tmp_path, Thresholds(256 << 20, 64 << 20, 1 << 20))
    disk.keep_ballast()
    monkeypatch.setattr(Disk, "space", lambda _: DiskSpace(8 << 30, free))
    disk.make_room()
    assert (disk.ballast_bytes == 0) is is_released
