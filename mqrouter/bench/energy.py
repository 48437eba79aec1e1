"""Energy of the device, where its hardware tells: Intel's and AMD's RAPL counters, or the INA3221 of a Jetson board."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SAMPLE_S = 0.1
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Labels of the rail that feeds all others, in order of preference; without one the channels are summed."""


class Meter(Protocol):
    name: str

    def joules(self) -> float:
        """Returns the energy used since some moment, rising. Raises OSError or ValueError."""
        ...


@dataclass(slots=True)
class _Zone:
    counter: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def advance(self) -> int:
        now_uj = _number(self.counter)
        self.total_uj += (now_uj - self.last_uj) % self.range_uj  # it starts again at zero
        self.last_uj = now_uj
        return self.total_uj


class Rapl:
    """The packages' counters; https://www.kernel.org/doc/html/latest/power/powercap/powercap.html."""

    name = "RAPL"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = [
            _Zone(zone / "energy_uj", _number(zone / "max_energy_range_uj") + 1, _number(zone / "energy_uj"))
            for zone in zones
        ]

    def joules(self) -> float:
        return sum(zone.advance() for zone in self._zones) / 1e6


class Ina3221:
    """Voltage times current, integrated between readings; `sampled` sees to it that there are enough."""

    name = "INA3221"

    def __init__(self, channels: Sequence[tuple[Path, Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._channels = channels
        self._clock = clock
        self._at_s, self._watts, self._joules = clock(), self._read(), 0.0

    def joules(self) -> float:
        watts, now_s = self._read(), self._clock()
        self._joules += (now_s - self._at_s) * (watts + self._watts) / 2
        self._at_s, self._watts = now_s, watts
        return self._joules

    def _read(self) -> float:
        return sum(_number(volts) * _number(amperes) for volts, amperes in self._channels) / 1e6


def find_meter(sys: Path = Path("/sys")) -> Meter | None:
    """Returns the meter of this device; None where there is none, or none that this user may read."""
    for find in (_find_rapl, _find_ina3221):
        with contextlib.suppress(OSError, ValueError):
            if (meter := find(sys)) is not None:
                return meter
    return None


@asynccontextmanager
async def sampled(meter: Meter | None) -> AsyncIterator[None]:
    """Inside the block the meter is read often enough for a power that changes."""
    if not isinstance(meter, Ina3221):
        yield
        return
    sampling = asyncio.create_task(_sample(meter), name="bench.energy")
    try:
        yield
    finally:
        sampling.cancel()
        await asyncio.wait([sampling])


async def _sample(meter: Meter) -> None:
    while True:
        with contextlib.suppress(OSError, ValueError):
            meter.joules()
        await asyncio.sleep(SAMPLE_S)


def _find_rapl(sys: Path) -> Meter | None:
    # intel-rapl:0 is a package, intel-rapl:0:1 a part of it; AMD's are named so too.
    zones = sorted(zone for zone in (sys / "class/powercap").glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
    return Rapl(packages) if packages else None


def _find_ina3221(sys: Path) -> Meter | None:
    channels: dict[str, tuple[Path, Path]] = {}
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for number in (1, 2, 3):
            pair = chip / f"in{number}_input", chip / f"curr{number}_input"
            if all(path.exists() for path in pair):
                channels[_text(chip / f"in{number}_label") or f"{chip.name}.{number}"] = pair
    whole = next((channels[label] for label in WHOLE_BOARD if label in channels), None)
    return Ina3221([whole] if whole else list(channels.values())) if channels else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
