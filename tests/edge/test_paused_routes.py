"""Routes that operators hold back: what is in memory is what is on disk, whatever is ordered at once."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest
from fakes import START_MS, FlakyDatabase

from mqrouter.edge.store import steering
from mqrouter.edge.store.lines import Lines
from mqrouter.edge.store.store import Store


async def test_pause_ordered_while_a_resume_is_written_holds(store: Store, database: FlakyDatabase) -> None:
    await store.recover(START_MS, ("hub",))
    await store.pause_route("frost", "me", START_MS)
    await asyncio.gather(
        store.resume_route("frost", "me", START_MS + 1), store.pause_route("frost", "you", START_MS + 2)
    )
    assert store.paused_routes == await database.read(steering.paused_routes)
    assert store.paused_routes["frost"].actor == "you"
    await asyncio.gather(
        store.pause_route("frost", "me", START_MS + 3), store.resume_route("frost", "me", START_MS + 4)
    )
    assert store.paused_routes == await database.read(steering.paused_routes) == {}


@pytest.fixture
def busy_threads() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


@pytest.mark.usefixtures("busy_threads")
def test_lines_are_read_in_the_writers_thread_while_a_decision_adds_one() -> None:
    lines, errors, is_over = Lines(), list[Exception](), threading.Event()

    def claim() -> None:
        while not is_over.is_set():
            try:
                lines.of(("hub",), ())
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=claim)
    thread.start()
    for number in range(10_000):
        lines.add("hub", f"route {number}")
    is_over.set()
    thread.join()
    assert errors == []
