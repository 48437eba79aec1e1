"""What a scrape says, over a real store."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from fakes import START_MS, FakeClock, FlakyDatabase, cancel, refused, request
from metric_stage import MetricStage, decision
from metric_text import Samples, samples_of

from mqrouter.core.request import Answer
from mqrouter.core.spending import Tokens
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import ErrorCode, StoreError

REFUSED = {"outcome": "bad_request", "route": "_none", "tier": "_none"}


@pytest.fixture
def stage(store: Store, database: FlakyDatabase, clock: FakeClock, tmp_path: Path) -> MetricStage:
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("51500\n")
    return MetricStage(store, database, clock, tmp_path)


async def scrape(stage: MetricStage) -> Samples:
    return samples_of(await stage.text())


async def claim(store: Store, number: int = 1) -> None:
    for row in await store.next_received(number, ()):
        await store.queue_for_tiers(row, ("hub",), route="frost", confidence=0.5, decision={}, now_ms=START_MS)
    await store.claim("hub", ["hub"], number, START_MS)


async def test_queue_is_shown_by_state_with_its_age(stage: MetricStage) -> None:
    await stage.store.accept([request("a?", correlation=b"a"), request("bb?", correlation=b"b")], START_MS)
    stage.clock.advance(90)
    await claim(stage.store)

    found = await scrape(stage)

    assert found.value("mqrouter_queue_requests", state="received") == 1
    assert found.value("mqrouter_queue_requests", state="leased") == 1
    assert found.value("mqrouter_queue_bytes", state="received") == len("bb?")
    assert found.value("mqrouter_queue_bytes", state="leased") == len("a?")
    assert found.value("mqrouter_queue_bytes", state="pending") == 0
    assert found.value("mqrouter_queue_oldest_age_seconds", state="received") == 90
    assert found.value("mqrouter_queue_oldest_age_seconds", state="leased") == 90
    assert found.value("mqrouter_queue_oldest_age_seconds", state="pending") == 0


async def test_each_request_ends_once_with_its_outcome(stage: MetricStage) -> None:
    store, questions = stage.store, [request(f"{name}?", correlation=name.encode()) for name in "abc"]
    await store.accept([*questions, refused()], START_MS)
    rows = await store.next_received(3, ())
    for row in rows[:2]:
        await store.queue_for_tiers(row, ("hub",), route="frost", confidence=0.5, decision={}, now_ms=START_MS)
    (first, second) = await store.claim("hub", ["hub"], 2, START_MS)
    yes = Answer(text="Yes.", route="frost", tier="hub")
    for _ in range(2):  # the second time it has ended
        await store.finish(first, yes, State.ANSWERED, START_MS, lease=first.lease)
    await store.finish(second, Answer(error=ErrorCode.UPSTREAM_FAILED), State.ANSWERED, START_MS, lease=second.lease)
    await cancel(store, questions[2].id, START_MS)

    ended = {
        tuple(labels.values()): value for name, labels, value in (await scrape(stage)).rows if "_requests_t" in name
    }

    assert ended == {
        ("answered", "frost", "hub"): 1,
        ("upstream_failed", "frost", "_none"): 1,
        ("cancelled", "_none", "_none"): 1,
        ("bad_request", "_none", "_none"): 1,
    }


async def test_batch_that_is_written_again_is_counted_once(stage: MetricStage) -> None:
    def fail(db: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("no such table")

    with pytest.raises(StoreError):
        await stage.database.write(fail)
    both = stage.store.accept([refused()], START_MS), stage.database.write(fail)
    await asyncio.gather(*both, return_exceptions=True)

    assert (await scrape(stage)).value("mqrouter_requests_total", **REFUSED) == 1


async def test_answer_nobody_takes_is_dropped_and_counted(stage: MetricStage) -> None:
    await stage.store.accept([refused()], START_MS)
    assert (await scrape(stage)).value("mqrouter_answers_waiting") == 1
    await stage.store.give_up_answers(START_MS + 10**9)

    found = await scrape(stage)

    assert found.value("mqrouter_dropped_total", reason="undelivered") == 1
    assert found.value("mqrouter_answers_waiting") == 0


async def test_tier_that_is_down_shows_why(stage: MetricStage) -> None:
    stage.board.unreachable("hub", "refused")

    found = await scrape(stage)

    assert [found.value("mqrouter_tier_up", tier=name) for name in ("edge", "hub")] == [1, 0]
    assert found.value("mqrouter_tier_breaker_state", tier="hub", state="open") == 1
    assert found.value("mqrouter_tier_breaker_state", tier="hub", state="closed") == 0


async def test_paused_route_is_shown_though_no_configuration_has_it_any_more(stage: MetricStage) -> None:
    assert (await scrape(stage)).value("mqrouter_route_paused", route="frost") == 0
    for route in ("frost", "gone"):
        await stage.store.pause_route(route, "me", START_MS)

    found = await scrape(stage)

    assert [found.value("mqrouter_route_paused", route=route) for route in ("frost", "gone")] == [1, 1]
    await stage.store.resume_route("frost", "me", START_MS)
    assert (await scrape(stage)).value("mqrouter_route_paused", route="frost") == 0


async def test_route_that_a_reload_brings_is_shown_before_it_is_ever_held_back(stage: MetricStage) -> None:
    stage.routes.append("harvest")

    assert (await scrape(stage)).value("mqrouter_route_paused", route="harvest") == 0


async def test_tokens_and_money_add_up(stage: MetricStage) -> None:
    stage.metrics.used("hub", Tokens(1000, 100))
    stage.metrics.used("hub", Tokens(0, 100))
    stage.metrics.used("edge", Tokens(5, 5))

    found = await scrape(stage)

    assert found.value("mqrouter_tier_tokens_total", tier="hub", kind="completion") == 200
    assert found.value("mqrouter_tier_cost_total", tier="hub") == pytest.approx(0.014)
    assert found.value("mqrouter_tier_limit", tier="hub", limit="budget_per_day") == 2.0


async def test_close_decision_counts_as_such(stage: MetricStage) -> None:
    stage.metrics.decided(decision(route=None, margin=0.004), 0.01)
    stage.metrics.decided(decision(route="frost", margin=0.3), 0.01)

    found = await scrape(stage)

    assert found.value("mqrouter_decisions_low_margin_total", route="frost") == 1
    assert found.value("mqrouter_decisions_total", route="_none", reason="too_close") == 1
    assert found.value("mqrouter_route_margin_bucket", le="0.01") == 1
    assert found.value("mqrouter_route_score_count", route="frost") == 2


async def test_worker_and_machine_are_shown(stage: MetricStage) -> None:
    found = await scrape(stage)

    assert found.value("mqrouter_worker_resident_bytes", tier="edge") == 206e6
    assert found.value("mqrouter_worker_starts_total", tier="edge") == 3
    assert found.value("mqrouter_worker_state", tier="edge", state="ready") == 1
    assert found.value("mqrouter_temperature_celsius", sensor="thermal_zone0:cpu-thermal") == 51.5


async def test_database_that_cannot_be_read_hides_nothing_else(
    stage: MetricStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> dict[State, int]:
        raise StoreError("no")

    monkeypatch.setattr(stage.store, "oldest_ms", fail)

    found = await scrape(stage)

    assert "mqrouter_database_bytes" not in found.names
    assert found.value("mqrouter_mqtt_connected") == 1


async def test_names_follow_the_conventions(stage: MetricStage) -> None:
    stage.tell_everything()
    found = await scrape(stage)

    for name, kind in found.kinds.items():
        assert name.startswith(("mqrouter_", "process_")), name
        assert not name.endswith(("_ms", "_mb", "_percent", "_count", "_sum")), name
        if kind == "counter":
            assert {sample for sample in found.names if sample.startswith(name)} <= {f"{name}_total"} | {
                sample for sample in found.names if sample.startswith(f"{name}_low")
            }, name
    assert not any(name.endswith("_created") for name in found.names)


async def test_idle_scrape_is_the_same_text(stage: MetricStage) -> None:
    """Nothing counts the scrape itself, and no order changes."""
    stage.tell_everything()

    first, second = [
        [line for line in (await stage.text()).splitlines() if not line.startswith("process_")] for _ in range(2)
    ]

    assert first == second
