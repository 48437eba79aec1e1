"""The machine: a clock that nobody can set back, the service manager's socket, and the loop's lag."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqrouter.edge.system import LoopMonitor, ServiceManager, SystemClock, spare_what_lasts


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        yield manager


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


@pytest.fixture
def _melted() -> Iterator[None]:
    yield
    gc.unfreeze()


class Linked:
    """Refers to itself, so that only the search for garbage finds it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("_melted")
def test_garbage_is_not_looked_for_among_what_lasts() -> None:
    lasting = Linked()
    spare_what_lasts()
    later = Linked()
    looked_at = gc.get_objects()
    assert any(found is later for found in looked_at)
    assert not any(found is lasting for found in looked_at)


@pytest.mark.usefixtures("_melted")
def test_what_lasted_once_and_is_garbage_now_goes_the_next_time() -> None:
    lasting = Linked()
    gone = weakref.ref(lasting)
    spare_what_lasts()
    del lasting
    gc.collect()
    assert gone() is not None, "else nothing was spared"
    spare_what_lasts()
    assert gone() is None


def test_clock_tells_wall_time() -> None:
    assert SystemClock().now_ms() == pytest.approx(time.time() * 1000, abs=100)


def test_setting_the_wall_clock_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now_ms()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert clock.now_ms() - before < 5_000
    now_s = clock.monotonic_s()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 60)
    assert clock.now_ms() - before == pytest.approx(60_000, abs=1_000)


def test_fields_reach_the_service_manager(manager_socket: socket.socket) -> None:
    ServiceManager(environ(manager_socket)).notify(READY=1, STATUS="2 pending")
    assert manager_socket.recv(1024) == b"READY=1\nSTATUS=2 pending"


def test_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0mqrouter-test-notify")
        manager.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": "@mqrouter-test-notify"}).notify(STOPPING=1)
        assert manager.recv(1024) == b"STOPPING=1"


def test_without_a_service_manager_nothing_happens(tmp_path: Path) -> None:
    for values in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        ServiceManager(values).notify(READY=1)


def test_status_stays_one_line(manager_socket: socket.socket) -> None:
    ServiceManager(environ(manager_socket)).notify(STATUS="broken\nMAINPID=1")
    assert manager_socket.recv(1024) == b"STATUS=broken MAINPID=1"


@pytest.mark.parametrize(
    ("value", "expected"), [("30000000", 30.0), ("", None), ("soon", None), ("-5", None), ("0", None)]
)
def test_watchdog_interval_is_read(manager_socket: socket.socket, value: str, expected: float | None) -> None:
    assert ServiceManager(environ(manager_socket, WATCHDOG_USEC=value)).watchdog_s == expected


def test_watchdog_needs_a_socket() -> None:
    assert ServiceManager({"WATCHDOG_USEC": "30000000"}).watchdog_s is None


async def test_living_loop_pings_the_watchdog(manager_socket: socket.socket) -> None:
    manager = ServiceManager(environ(manager_socket, WATCHDOG_USEC="30000000"))
    monitor = LoopMonitor(manager, lambda: "fine")
    async with asyncio.timeout(60):
        task = asyncio.create_task(monitor.run())
        found = await asyncio.to_thread(manager_socket.recv, 1024)
    task.cancel()
    assert found == b"WATCHDOG=1\nSTATUS=fine"


async def test_lag_of_a_stuck_loop_is_measured() -> None:
    monitor = LoopMonitor(ServiceManager({}), lambda: "")
    assert monitor.lag_ms(0.99) == 0.0
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(0)
    time.sleep(0.2)  # something blocks the loop
    async with asyncio.timeout(60):
        while monitor.lag_ms(1.0) == 0.0:
            await asyncio.sleep(0.001)
    assert 100 < monitor.lag_ms(1.0) < 2_000
    monitor.forget()
    assert monitor.lag_ms(0.5) == 0.0
    task.cancel()
