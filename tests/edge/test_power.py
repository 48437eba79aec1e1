"""Meters, on folders that look like those of the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqrouter.bench.energy import sampled
from mqrouter.edge.power import Ina3221, Kind, Rail, Reading, Sensors, find_meter


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(sys: Path, name: str, kind: str, uj: int) -> Path:
    return write(sys / "class/powercap" / name, name=kind, energy_uj=uj, max_energy_range_uj=9_999_999)


def channel(chip: Path, number: int, label: str, millivolts: int, milliamperes: int) -> None:
    names = {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
    write(chip, **names)


def test_rapl_counts_packages_only_and_over_the_counters_end(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    board = zone(tmp_path, "intel-rapl:1", "psys", 0)
    meter = find_meter(tmp_path)
    assert meter is not None and meter.name == "RAPL"
    write(core, energy_uj=5_000_000)
    write(board, energy_uj=5_000_000)
    write(package, energy_uj=1_000_000)
    assert meter.joules() == pytest.approx(2.0)
    write(package, energy_uj=1_500_000)
    assert meter.joules() == pytest.approx(2.5)


def test_ina3221_integrates_the_rail_that_feeds_all_others(tmp_path: Path) -> None:
    chip = write(tmp_path / "class/hwmon/hwmon2", name="ina3221")
    channel(chip, 1, "VDD_IN", 5_000, 1_000)
    channel(chip, 2, "VDD_CPU", 5_000, 700)
    rail = Rail("VDD_IN", chip / "in1_input", chip / "curr1_input")
    found = find_meter(tmp_path)
    assert isinstance(found, Ina3221) and found.joules() >= 0
    now_s = 0.0
    meter = Ina3221([rail], lambda: now_s)
    now_s = 2.0
    assert meter.joules() == pytest.approx(10.0)
    channel(chip, 1, "VDD_IN", 5_000, 3_000)
    now_s = 3.0
    assert meter.joules() == pytest.approx(20.0)


def test_rails_are_summed_where_none_feeds_the_others(tmp_path: Path) -> None:
    chip = write(tmp_path / "class/hwmon/hwmon0", name="ina3221")
    channel(chip, 1, "VDD_GPU", 1_000, 1_000)
    channel(chip, 2, "VDD_CPU", 2_000, 1_000)
    write(tmp_path / "class/hwmon/hwmon1", name="nvme", in1_input=1, curr1_input=1)
    meter = find_meter(tmp_path)
    assert isinstance(meter, Ina3221)
    assert meter._read() == pytest.approx(3.0)


@pytest.mark.parametrize("content", ["", "unknown"])
def test_meter_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    write(package, energy_uj=content)
    assert find_meter(tmp_path) is None


def test_machine_without_meter_has_none(tmp_path: Path) -> None:
    assert find_meter(tmp_path) is None


async def test_nothing_is_sampled_without_a_meter() -> None:
    async with sampled(None):
        assert len(asyncio.all_tasks()) == 1


def test_sensors_say_where_they_are_and_what_they_measure(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    channel(write(tmp_path / "class/hwmon/hwmon2", name="ina3221"), 1, "VDD_IN", 5_000, 1_200)
    write(tmp_path / "class/thermal/thermal_zone0", type="cpu-thermal", temp=51_500)
    write(tmp_path / "class/power_supply/BAT0", type="Battery", capacity=83)
    write(tmp_path / "class/power_supply/AC", type="Mains", online=0)
    sensors = Sensors(tmp_path)
    write(package, energy_uj=1_000_000)
    assert sensors.read() == [
        Reading(Kind.ENERGY_J, "intel-rapl.0:package-0", 2.0),
        Reading(Kind.POWER_W, "hwmon2:VDD_IN", 6.0),
        Reading(Kind.TEMPERATURE_C, "thermal_zone0:cpu-thermal", 51.5),
        Reading(Kind.MAINS, "AC", 0.0),
        Reading(Kind.BATTERY_SHARE, "BAT0", 0.83),
    ]


def test_sensor_that_falls_silent_leaves_the_others(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    gone = write(tmp_path / "class/thermal/thermal_zone0", type="gpu-thermal", temp=40_000)
    write(tmp_path / "class/thermal/thermal_zone1", type="cpu-thermal", temp=41_000)
    sensors = Sensors(tmp_path)
    (gone / "temp").unlink()
    assert [reading.sensor for reading in sensors.read()] == ["intel-rapl.0:package-0", "thermal_zone1:cpu-thermal"]


def test_machine_without_sensors_reads_nothing(tmp_path: Path) -> None:
    assert Sensors(tmp_path).read() == []
