"""The machine: its clock, its service manager, and whether the event loop keeps up."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

from mqrouter.core.request import RequestId
from mqrouter.core.timeline import Clocks

TICK_S = 0.05
KEPT_TICKS = 12_000  # ten minutes


def machine_clocks() -> Clocks:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot_id = f"unknown-{uuid.uuid4().hex}"  # like no other
    return Clocks(int(1000 * time.time()), int(1000 * time.monotonic()), boot_id)


def new_request_id() -> RequestId:
    """Returns a name that no other request has, by chance."""
    return RequestId(uuid.uuid4().hex[:16])


def minute_of_day() -> int:
    """Returns the minutes since midnight, local time."""
    now = time.localtime()
    return 60 * now.tm_hour + now.tm_min


def spare_what_lasts() -> None:
    """What is alive now is left out from here on when the interpreter looks for garbage.

    Else it goes every few seconds through all that was ever imported and built, while nothing else can run: 66 to 85 ms
    of a daemon with 97,000 objects, where there is nothing to find; without them it is 2 ms.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class SystemClock:
    """The gateway's own time, carried by the clock that counts since the boot: one that is set moves nothing."""

    def __init__(self) -> None:
        self._offset_ms = int(1000 * (time.time() - time.monotonic()))

    def start_at(self, now_ms: int) -> None:
        self._offset_ms = now_ms - int(1000 * time.monotonic())

    def now_ms(self) -> int:
        return int(1000 * time.monotonic()) + self._offset_ms

    def monotonic_s(self) -> float:
        return time.monotonic()


class ServiceManager:
    """sd_notify(3): a datagram to the socket systemd names; nothing at all without one."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        environ = dict(os.environ) if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        is_watched = watchdog_us.isdecimal() and int(watchdog_us) > 0 and self._address
        self.watchdog_s = int(watchdog_us) / 1e6 if is_watched else None

    def notify(self, **fields: str | int) -> None:
        """Sends fields such as READY=1, STATUS="…", STOPPING=1. A manager that is gone is not our concern."""
        if not self._address:
            return
        message = "\n".join(f"{name}={value}".replace("\n", " ") for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            try:
                manager.connect(self._address)
                manager.send(message.encode())
            except OSError:
                return


class LoopMonitor:
    """Measures how late the event loop is, and pings the watchdog from it: a stuck loop falls silent."""

    def __init__(
        self,
        manager: ServiceManager,
        status: Callable[[], str],
        observe: Callable[[float], object] = lambda lag_s: None,
    ) -> None:
        self._manager = manager
        self._observe = observe
        self._status = status
        self._lags_s: deque[float] = deque(maxlen=KEPT_TICKS)
        self._ping_at_s = 0.0

    def lag_ms(self, share: float) -> float:
        """Returns the lag that `share` of the ticks kept below, milliseconds."""
        lags = sorted(self._lags_s)
        return 1000 * lags[min(len(lags) - 1, int(share * len(lags)))] if lags else 0.0

    def forget(self) -> None:
        self._lags_s.clear()

    async def run(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            lag_s = max(0.0, now_s - before_s - TICK_S)
            self._lags_s.append(lag_s)
            self._observe(lag_s)
            if self._manager.watchdog_s is not None and now_s >= self._ping_at_s:
                self._ping_at_s = now_s + self._manager.watchdog_s / 3
                self._manager.notify(WATCHDOG=1, STATUS=self._status())
