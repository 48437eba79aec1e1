"""Power, energy and temperature, where the machine tells: what the kernel shows below /sys, read as files.

RAPL counts the energy of Intel's and AMD's packages, the INA3221 of a Jetson board measures its rails; thermal zones,
batteries and mains are the kernel's own classes. A sensor that this user may not read is left out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

SYS = Path("/sys")
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Labels of the rail that feeds all others, in order of preference; without one the channels are summed."""


class Meter(Protocol):
    name: str

    def joules(self) -> float:
        """Returns the energy used since some moment, rising. Raises OSError or ValueError."""
        ...


class Zone:
    """One counter of RAPL; https://www.kernel.org/doc/html/latest/power/powercap/powercap.html."""

    def __init__(self, folder: Path) -> None:
        self.name = _text(folder / "name")
        self._counter = folder / "energy_uj"
        self._range_uj = _number(folder / "max_energy_range_uj") + 1
        self._last_uj = _number(self._counter)
        self._total_uj = 0

    def joules(self) -> float:
        """Returns the energy used since this object was made; it must be read before the counter comes round twice."""
        now_uj = _number(self._counter)
        self._total_uj += (now_uj - self._last_uj) % self._range_uj  # it starts again at zero
        self._last_uj = now_uj
        return self._total_uj / 1e6


class Rapl:
    """The packages' counters, summed."""

    name = "RAPL"

    def __init__(self, packages: Sequence[Zone]) -> None:
        self._packages = packages

    def joules(self) -> float:
        return sum(zone.joules() for zone in self._packages)


@dataclass(frozen=True, slots=True)
class Rail:
    """One channel of an INA3221."""

    label: str
    volts: Path
    amperes: Path

    def watts(self) -> float:
        return _number(self.volts) * _number(self.amperes) / 1e6


class Ina3221:
    """Voltage times current, integrated between readings: these have to be frequent enough."""

    name = "INA3221"

    def __init__(self, rails: Sequence[Rail], clock: Callable[[], float] = time.monotonic) -> None:
        self._rails = rails
        self._clock = clock
        self._at_s, self._watts, self._joules = clock(), self._read(), 0.0

    def joules(self) -> float:
        watts, now_s = self._read(), self._clock()
        self._joules += (now_s - self._at_s) * (watts + self._watts) / 2
        self._at_s, self._watts = now_s, watts
        return self._joules

    def _read(self) -> float:
        return sum(rail.watts() for rail in self._rails)


def find_meter(sys: Path = SYS) -> Meter | None:
    """Returns the meter of this device; None where there is none, or none that this user may read."""
    for find in (_find_rapl, _find_ina3221):
        with contextlib.suppress(OSError, ValueError):
            if (meter := find(sys)) is not None:
                return meter
    return None


class Kind(StrEnum):
    """What a sensor measures, with its unit."""

    ENERGY_J = "energy_j"  # since the start
    POWER_W = "power_w"
    TEMPERATURE_C = "temperature_c"
    BATTERY_SHARE = "battery_share"  # 0 to 1
    MAINS = "mains"  # 1 where it feeds the machine


@dataclass(frozen=True, slots=True)
class Reading:
    kind: Kind
    sensor: str
    """The kernel's name of it, and what the board says it is: "thermal_zone0:cpu-thermal"."""
    value: float


class Sensors:
    """All there are; found once, read whenever asked. Slow chips take milliseconds: read in a thread."""

    def __init__(self, sys: Path = SYS) -> None:
        self._sensors = [*_energies(sys), *_powers(sys), *_temperatures(sys), *_supplies(sys)]

    @property
    def count(self) -> int:
        return len(self._sensors)

    def read(self) -> list[Reading]:
        """Returns what can be read now: a battery may be taken out, a zone be switched off."""
        found: list[Reading] = []
        for kind, name, value in self._sensors:
            with contextlib.suppress(OSError, ValueError):
                found.append(Reading(kind, name, value()))
        return found


_Sensor = tuple[Kind, str, Callable[[], float]]


def _energies(sys: Path) -> Iterator[_Sensor]:
    for folder in sorted((sys / "class/powercap").glob("intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):  # from Linux 5.10 on, only root may read it
            zone = Zone(folder)
            yield Kind.ENERGY_J, f"{folder.name.replace(':', '.')}:{zone.name}", zone.joules


def _powers(sys: Path) -> Iterator[_Sensor]:
    for rail in _rails(sys):
        yield Kind.POWER_W, f"{rail.volts.parent.name}:{rail.label}", rail.watts


def _temperatures(sys: Path) -> Iterator[_Sensor]:
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        yield Kind.TEMPERATURE_C, f"{zone.name}:{_text(zone / 'type')}", _scaled(zone / "temp", 1000)


def _supplies(sys: Path) -> Iterator[_Sensor]:
    for supply in sorted((sys / "class/power_supply").glob("*")):
        match _text(supply / "type"):
            case "Battery":
                yield Kind.BATTERY_SHARE, supply.name, _scaled(supply / "capacity", 100)
            case "Mains" | "USB" if (supply / "online").exists():
                yield Kind.MAINS, supply.name, _scaled(supply / "online", 1)


def _scaled(path: Path, units: int) -> Callable[[], float]:
    return lambda: _number(path) / units


def _find_rapl(sys: Path) -> Meter | None:
    # intel-rapl:0 is a package, intel-rapl:0:1 a part of it; AMD's are named so too.
    zones = sorted(zone for zone in (sys / "class/powercap").glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [Zone(zone) for zone in zones if _text(zone / "name").startswith("package")]
    return Rapl(packages) if packages else None


def _find_ina3221(sys: Path) -> Meter | None:
    rails = {rail.label: rail for rail in _rails(sys)}
    whole = next((rails[label] for label in WHOLE_BOARD if label in rails), None)
    return Ina3221([whole] if whole else list(rails.values())) if rails else None


def _rails(sys: Path) -> Iterator[Rail]:
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for number in (1, 2, 3):
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            if volts.exists() and amperes.exists():
                yield Rail(_text(chip / f"in{number}_label") or f"{chip.name}.{number}", volts, amperes)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
