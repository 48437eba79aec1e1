"""What the overview shows of the last day: sampled four times a minute, kept in memory, gone with the process."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from mqrouter.core.states import ACTIVE
from mqrouter.core.trend import Trend
from mqrouter.edge.metrics import Metrics
from mqrouter.edge.power import WHOLE_BOARD, Kind, Reading, Sensors
from mqrouter.edge.system import machine_clocks
from mqrouter.errors import StoreError
from mqrouter.report import Report

log = structlog.get_logger("trends")

STEP_S = 15.0
FINE = 240  # an hour
COARSE_MS = 120_000
COARSE = 720  # a day
COUNTED_MS = 300_000
COUNTED = 12  # an hour
SERIES = (
    "received",
    "pending",
    "leased",
    "oldest_s",
    "router_mb",
    "models_mb",
    "power_w",
    "temperature_c",
    "per_minute",
)
MB = 1e6


class Trends:
    def __init__(self, report: Report, metrics: Metrics, sensors: Sensors) -> None:
        self._report = report
        self._metrics = metrics
        self._sensors = sensors
        self._fine, self._coarse = Trend(SERIES, FINE), Trend(SERIES, COARSE)
        self._coarse_at_ms = 0
        self._counted: deque[tuple[int, Mapping[str, Any], Mapping[str, Any]]] = deque(maxlen=COUNTED)
        self._delivered = 0
        self._energy_j: float | None = None
        self._latest_ms = 0

    async def run(self) -> None:
        while True:
            try:
                await self._sample()
            except StoreError as error:
                log.warning("trends.store_not_read", error=str(error))
            except Exception:
                log.exception("trends.sample_failed")  # no drawing is worth the gateway
            await asyncio.sleep(STEP_S)

    async def _sample(self) -> None:
        report, now_ms = self._report, self._report.clock.now_ms()
        oldest_ms = await self.oldest_ms()
        sensors = await asyncio.to_thread(self._sensors.read) if self._sensors.count else []
        delivered, self._delivered = report.deliver.delivered - self._delivered, report.deliver.delivered
        self._fine.add(
            now_ms,
            {str(state): report.store.counts[state] for state in ACTIVE}
            | self._memory()
            | {
                "oldest_s": 0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
                "power_w": self._power_w(sensors, now_ms),
                "temperature_c": max((r.value for r in sensors if r.kind is Kind.TEMPERATURE_C), default=None),
                "per_minute": 60 * delivered / STEP_S,
            },
        )
        if now_ms - self._coarse_at_ms >= COARSE_MS:
            self._coarse.add(now_ms, self._fine.highest_since(self._coarse_at_ms))
            self._coarse_at_ms = now_ms
        if not self._counted or now_ms - self._counted[-1][0] >= COUNTED_MS:
            self._counted.append((now_ms, self._metrics.answered_within(), self._metrics.decided_routes()))
        self._latest_ms = now_ms

    def _memory(self) -> dict[str, float | None]:
        report = self._report
        resident = [report.memory.resident_mb(worker.pid) for worker in report.workers.values() if worker.pid]
        return {
            "router_mb": report.memory.resident_mb(os.getpid()),
            "models_mb": sum(mb or 0.0 for mb in resident) if report.workers else None,
        }

    def _power_w(self, sensors: Sequence[Reading], now_ms: int) -> float | None:
        """Returns what the board's own rail takes, else all rails, else the processor's packages; None without any."""
        rails = {reading.sensor: reading.value for reading in sensors if reading.kind is Kind.POWER_W}
        if rails:
            whole = [watts for name, watts in rails.items() if name.rpartition(":")[2] in WHOLE_BOARD]
            return whole[0] if whole else sum(rails.values())
        packages = [r.value for r in sensors if r.kind is Kind.ENERGY_J and ":package" in r.sensor]
        if not packages:
            return None
        before_j, self._energy_j = self._energy_j, sum(packages)
        passed_s = (now_ms - self._latest_ms) / 1000
        return None if before_j is None or passed_s <= 0 else (self._energy_j - before_j) / passed_s

    async def oldest_ms(self) -> int | None:
        """Returns when the oldest request without an answer came in, by the gateway's own time. Raises StoreError."""
        oldest = await self._report.store.oldest_ms()
        return min((oldest[state] for state in ACTIVE if state in oldest), default=None)

    def shown(self, *, is_day: bool) -> dict[str, Any]:
        """Returns the samples of the last hour or day with their times (wall clock, milliseconds)."""
        trend = self._coarse if is_day else self._fine
        offset_ms = machine_clocks().wall_ms - self._report.clock.now_ms()
        return {"at_ms": [at_ms + offset_ms for at_ms in trend.at_ms]} | {name: trend.series(name) for name in SERIES}

    def latest(self) -> dict[str, float | None]:
        """Returns what goes on between two samples: memory as it is, answers a minute over the last `STEP_S`, and of
        what only sensors and the database know the latest sample.
        """
        sampled = {name: (self._fine.series(name) or [None])[-1] for name in SERIES}
        share = min(1.0, max(0, self._report.clock.now_ms() - self._latest_ms) / (1000 * STEP_S))
        delivered = self._report.deliver.delivered - self._delivered
        # What was counted before is taken as spread evenly, and only the part that is young enough of it counts.
        rate = (1.0 - share) * (sampled["per_minute"] or 0.0) + 60 * delivered / STEP_S
        return sampled | self._memory() | {"per_minute": rate}

    def latencies(self) -> dict[str, list[tuple[float, int]]]:
        """Returns, by tier, how many answers of about the last hour took at most so many seconds, and over the last."""
        before: Mapping[str, Any] = self._counted[0][1] if len(self._counted) == COUNTED else {}
        found: dict[str, list[tuple[float, int]]] = {}
        for tier, bounds in self._metrics.answered_within().items():
            base = before.get(tier, {})
            risen = [(bound, int(count - base.get(bound, 0))) for bound, count in sorted(bounds.items())]
            lower = [0, *(count for _, count in risen[:-1])]
            found[tier] = [(bound, count - less) for (bound, count), less in zip(risen, lower, strict=True)]
        return found

    def routes(self) -> dict[str, int]:
        """Returns how many questions of about the last hour went to each route, the most first."""
        before: Mapping[str, Any] = self._counted[0][2] if len(self._counted) == COUNTED else {}
        found = {name: int(count - before.get(name, 0)) for name, count in self._metrics.decided_routes().items()}
        return dict(sorted(((n, c) for n, c in found.items() if c > 0), key=lambda item: -item[1]))
