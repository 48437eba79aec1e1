"""How much memory there is: of the machine, of the control groups this process lives in, and of one process."""

from __future__ import annotations

from pathlib import Path

from mqrouter.core.memory_guard import MemoryReading

KIB = 1024
MB = 1e6


class Memory:
    """`root` is where /proc and /sys are found. What cannot be read is taken as no limit."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._groups = root / "sys/fs/cgroup"

    def read(self) -> MemoryReading:
        available = [self._machine_bytes(), *self._group_bytes()]
        return MemoryReading(min(value for value in available if value is not None) / MB, self._pressure())

    def resident_mb(self, pid: int) -> float | None:
        """Returns what a process holds in memory, its share of mapped files included; None where it is gone."""
        kib = _field(self._proc / str(pid) / "status", "VmRSS:")
        return None if kib is None else kib * KIB / MB

    def _machine_bytes(self) -> float:
        kib = _field(self._proc / "meminfo", "MemAvailable:")
        return float("inf") if kib is None else float(kib * KIB)

    def _group_bytes(self) -> list[float]:
        """Returns what each control group (v2) that this process is in leaves; page cache can be given back."""
        lines = _lines(self._proc / "self/cgroup")
        path = next((line[3:] for line in lines if line.startswith("0::")), None)
        if path is None:
            return []
        found: list[float] = []
        folder = self._groups / path.lstrip("/")
        while folder != self._groups.parent:
            limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
            if limit is not None and used is not None:
                cached = _field(folder / "memory.stat", "inactive_file") or 0
                found.append(limit - used + cached)
            folder = folder.parent
        return found

    def _pressure(self) -> float | None:
        for line in _lines(self._proc / "pressure/memory"):
            if line.startswith("full"):
                return float(line.split("avg10=")[1].split()[0])
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):  # no such kernel, no permission; pressure may be switched off
        return []


def _field(path: Path, name: str) -> int | None:
    words = (line.split() for line in _lines(path))
    return next((int(found[1]) for found in words if len(found) > 1 and found[0] == name), None)


def _number(path: Path) -> int | None:
    """Returns the number in a file; None for "max", which is no limit."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None
