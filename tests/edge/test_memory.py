"""Readings of memory: of a machine laid out in files, and of this one."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from mqrouter.core.memory_guard import MemoryReading
from mqrouter.edge.memory import Memory

PRESSURE = "some avg10=4.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=2.50 avg60=0.00 avg300=0.00 total=1\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable:    1000000 kB\n")
    write(tmp_path / "proc/pressure/memory", PRESSURE)
    write(tmp_path / "proc/self/cgroup", "0::/system.slice/mqrouter.service\n")
    return tmp_path


def limit(root: Path, group: str, limit_mb: str, used_mb: int, cached_mb: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / group
    write(folder / "memory.max", f"{limit_mb}000000\n" if limit_mb.isdigit() else f"{limit_mb}\n")
    write(folder / "memory.current", f"{used_mb}000000\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {cached_mb}000000\n")


def test_machine_without_groups_has_what_it_says(root: Path) -> None:
    assert Memory(root).read() == MemoryReading(1024.0, 2.5)


@pytest.mark.parametrize(
    ("service", "slice_", "available_mb"),
    [
        (("500", 200), ("900", 300), 300.0),
        (("500", 200, 50), ("900", 300), 350.0),
        (("500", 200), ("400", 300), 100.0),
        (("max", 200), ("max", 300), 1024.0),
        (("5000", 200), ("max", 300), 1024.0),
    ],
)
def test_tightest_of_machine_and_groups_counts(
    root: Path, service: tuple[str, int], slice_: tuple[str, int], available_mb: float
) -> None:
    limit(root, "system.slice/mqrouter.service", *service)
    limit(root, "system.slice", *slice_)
    assert Memory(root).read().available_mb == available_mb


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert Memory(tmp_path).read() == MemoryReading(float("inf"), None)
    assert Memory(tmp_path).resident_mb(1) is None


def test_this_machine_reads() -> None:
    reading = Memory().read()
    assert 0 < reading.available_mb <= psutil.virtual_memory().total / 1e6
    resident_mb, expected_mb = Memory().resident_mb(os.getpid()), psutil.Process().memory_info().rss / 1e6
    assert resident_mb is not None and abs(resident_mb - expected_mb) < 50
