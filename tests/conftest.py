"""What most tests start from: a clock they move, and a real database of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import QUEUE, FakeClock, FlakyDatabase
from hypothesis import HealthCheck, Phase, settings

from mqrouter.edge.store.store import Policy, Store

GRACE_MS = 600_000
DEDUPE_MS = 3_600_000

FOLDERS_OF_LONG_TESTS = ("faults", "e2e")

settings.register_profile(
    "quick",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},  # tracing what it shrinks takes minutes
)
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: two processes that share the files are then done at about the same time."""
    items.sort(key=lambda item: item.path.parent.name not in FOLDERS_OF_LONG_TESTS)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Timers of the event loop follow this clock: `advance` is the only way in which time passes."""
    clock = FakeClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock.monotonic_s)
    return clock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[FlakyDatabase]:
    database = FlakyDatabase(tmp_path / "mqrouter.db")
    async with database:
        yield database


@pytest.fixture
async def store(database: FlakyDatabase) -> Store:
    return Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
