"""What the overview draws, sampled from parts that stand still, over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import START_MS, FakeClock, FlakyDatabase, request
from metric_stage import MetricStage, decision

from mqrouter.edge.store.store import Store
from mqrouter.trends import COARSE, FINE, STEP_S, Trends

HOUR_S = 3600


@pytest.fixture
def stage(store: Store, database: FlakyDatabase, clock: FakeClock, tmp_path: Path) -> MetricStage:
    rapl = tmp_path / "class/powercap/intel-rapl:0"
    rapl.mkdir(parents=True)
    (rapl / "name").write_text("package-0\n")
    (rapl / "energy_uj").write_text("0\n")
    (rapl / "max_energy_range_uj").write_text("999999999999\n")
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("51500\n")
    return MetricStage(store, database, clock, tmp_path)


@pytest.fixture
async def trends(stage: MetricStage) -> AsyncIterator[Trends]:
    yield Trends(stage.report, stage.metrics, stage.sensors)


async def sample(trends: Trends, stage: MetricStage, number: int = 1) -> None:
    for _ in range(number):
        await trends._sample()
        stage.clock.advance(STEP_S)


async def test_queue_memory_and_temperature_are_sampled(stage: MetricStage, trends: Trends, tmp_path: Path) -> None:
    await stage.store.accept([request("a?")], START_MS)
    stage.clock.advance(90)
    await sample(trends, stage)
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text(f"{int(12e6 * STEP_S)}\n")
    await sample(trends, stage)
    found = trends.shown(is_day=False)
    assert [b - a for a, b in zip(found["at_ms"], found["at_ms"][1:], strict=False)] == [1000 * STEP_S]
    assert (found["received"], found["pending"]) == ([1.0, 1.0], [0.0, 0.0])
    assert found["oldest_s"] == [90.0, 90.0 + STEP_S]
    assert (found["models_mb"], found["temperature_c"]) == ([206.0, 206.0], [51.5, 51.5])
    assert found["power_w"] == [None, pytest.approx(12.0)]


async def test_latest_does_not_wait_for_the_next_sample(stage: MetricStage, trends: Trends) -> None:
    delivered = stage.report.deliver.delivered
    found = trends.latest()
    assert (found["models_mb"], found["per_minute"]) == (206.0, 60 * delivered / STEP_S)
    assert delivered and found["temperature_c"] is None
    await sample(trends, stage)  # and STEP_S later, in which nothing was delivered
    assert trends.latest()["per_minute"] == 0.0
    stage.report.deliver.delivered += 3
    found = trends.latest()
    assert (found["per_minute"], found["temperature_c"]) == (180 / STEP_S, 51.5)
    await trends._sample()
    assert trends.latest()["per_minute"] == 180 / STEP_S
    stage.clock.advance(STEP_S / 2)
    assert trends.latest()["per_minute"] == 90 / STEP_S


async def test_a_day_is_kept_in_little_and_keeps_its_peaks(stage: MetricStage, trends: Trends) -> None:
    await sample(trends, stage, 4)
    await stage.store.accept([request("a?")], START_MS)
    await sample(trends, stage)
    (row,) = await stage.store.next_received(1, ())
    await stage.store.queue_for_tiers(row, ("hub",), route="r", confidence=1.0, decision={}, now_ms=START_MS)
    await sample(trends, stage, 2 * FINE)
    hour, day = trends.shown(is_day=False), trends.shown(is_day=True)
    assert len(hour["at_ms"]) == FINE and len(day["at_ms"]) < FINE
    assert day["at_ms"][-1] - day["at_ms"][0] > 6_900_000
    assert max(hour["received"]) == 0.0 and max(day["received"]) == 1.0
    size = sum(4 * (FINE + COARSE) for _ in day)
    assert size < 100_000


async def test_distributions_are_of_the_last_hour(stage: MetricStage, trends: Trends) -> None:
    stage.metrics.attempted("hub", "answered", 0.7)
    stage.metrics.attempted("hub", "failed", 0.7)
    stage.metrics.decided(decision(route="frost", margin=0.2), 0.01)
    await sample(trends, stage)
    stage.metrics.attempted("hub", "answered", 90.0)
    stage.metrics.decided(decision(route=None, margin=0.2), 0.01)
    assert [(bound, n) for bound, n in trends.latencies()["hub"] if n] == [(1.0, 1), (160.0, 1)]
    assert trends.routes() == {"frost": 1, "_none": 1}
    await sample(trends, stage, int(0.9 * HOUR_S / STEP_S))
    assert sum(n for _, n in trends.latencies()["hub"]) == 2
    await sample(trends, stage, int(0.2 * HOUR_S / STEP_S))
    assert sum(n for _, n in trends.latencies()["hub"]) == 0
    assert trends.routes() == {}


async def test_sampling_goes_on_where_the_database_cannot_be_read(
    stage: MetricStage, trends: Trends, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mqrouter.errors import StoreError

    reads: list[int] = []

    async def read(_operation: object) -> object:
        reads.append(1)
        raise StoreError("gone") if len(reads) % 2 else ValueError("a fault of ours")

    monkeypatch.setattr(database, "read", read)
    running = asyncio.create_task(trends.run(), name="trends")
    while len(reads) < 3:
        stage.clock.advance(STEP_S)
        await asyncio.sleep(0)
    running.cancel()
    assert trends.shown(is_day=False)["at_ms"] == []
