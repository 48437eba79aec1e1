"""What is read from the running parts at every scrape, as Prometheus metrics; the numbers of `mqrouter status`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from mqrouter import __version__
from mqrouter.core.breaker import BreakerState
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.records import Accepted
from mqrouter.core.states import TERMINAL, State
from mqrouter.edge.chat import WorkerState
from mqrouter.edge.metrics import NO_NAME
from mqrouter.edge.power import Kind, Reading, Sensors
from mqrouter.errors import StoreError
from mqrouter.flow.ports import DatabaseSize, Space
from mqrouter.report import Report

log = structlog.get_logger("metrics")

MB = 1e6
NO_SPANS: Mapping[str, int] = MappingProxyType({})
WAITING = tuple(state for state in State if state not in TERMINAL)
SENSORS = {
    Kind.POWER_W: ("power_watts", "Power of one of the board's rails."),
    Kind.TEMPERATURE_C: ("temperature_celsius", "Temperature of one of the machine's zones."),
    Kind.BATTERY_SHARE: ("battery_charge_ratio", "What the battery holds of what it can hold."),
    Kind.MAINS: ("mains_online", "1 where this supply feeds the machine."),
}


@dataclass(frozen=True, slots=True)
class Read:
    """What had to be waited for."""

    oldest_ms: Mapping[State, int]
    size: DatabaseSize | None
    sensors: Iterable[Reading]


class Gauges(Collector):
    """`refresh` first, `collect` then: the one may wait, the other may not. `routes` are those in force by then."""

    def __init__(
        self,
        report: Report,
        space: Space,
        sensors: Sensors,
        is_ready: Callable[[], bool],
        routes: Callable[[], Iterable[str]],
        spans: Mapping[str, int] = NO_SPANS,
    ) -> None:
        self._report = report
        self._space = space
        self._sensors = sensors
        self._is_ready = is_ready
        self._routes = routes
        self._spans = spans
        self._read = Read({}, None, ())
        self._turn = asyncio.Lock()
        """Counters of energy go on from where the last reading stood: one reading at a time."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register must read nothing."""
        return ()

    async def refresh(self) -> None:
        """A database that cannot be read takes its own metrics away, and no other."""
        oldest_ms: Mapping[State, int] = {}
        size: DatabaseSize | None = None
        try:
            oldest_ms, size = await asyncio.gather(self._report.store.oldest_ms(), self._space.size())
        except StoreError as error:
            log.warning("metrics.store_not_read", error=str(error))
        async with self._turn:
            sensors = await asyncio.to_thread(self._sensors.read) if self._sensors.count else []
            self._read = Read(oldest_ms, size, sensors)

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("mqrouter_build", "The version that runs.", {"version": __version__})
        yield _gauge("ready", "1 once models are loaded and the broker was there.", self._is_ready())
        yield from self._requests()
        yield from self._queue()
        yield from self._broker()
        yield from self._tiers()
        yield from self._limits()
        yield from self._workers()
        yield from self._storage()
        yield from self._power()
        spans = _counter(
            "trace_spans", "Spans for the collector: exported, failed, dropped (too many waited).", "result"
        )
        for result, number in self._spans.items():
            spans.add_metric([result], number)
        yield spans

    def _requests(self) -> Iterator[Metric]:
        report = self._report
        accepted = _counter(
            "accepted",
            "Questions that came in: new, absorbed (asked before), reused (id of another question) or refused.",
            "result",
        )
        for result in Accepted:
            accepted.add_metric([str(result)], report.intake.counts[str(result)])
        yield accepted
        ended = _counter(
            "requests", "Requests that ended, by outcome (answered, or the error's code).", "outcome", "route", "tier"
        )
        for how, count in sorted(report.store.holdings.ended.items(), key=str):
            if count:
                ended.add_metric([how.outcome, how.route or NO_NAME, how.tier or NO_NAME], count)
        yield ended
        dropped = _counter(
            "dropped", "Let go by a declared policy: evicted, qos0_overflow, retained, undelivered.", "reason"
        )
        dropped.add_metric(["evicted"], report.store.dropped)  # accepted, then made room for another question
        dropped.add_metric(["qos0_overflow"], report.intake.counts["dropped_qos0"])
        dropped.add_metric(["retained"], report.intake.counts["retained_ignored"])
        dropped.add_metric(["undelivered"], report.store.undelivered)  # nobody took the answer
        yield dropped
        yield _counted("answers_delivered", "Answers the broker acknowledged.", report.deliver.delivered)
        text = "Answers that nobody took yet: the broker is away, or nobody is subscribed."
        yield _gauge("answers_waiting", text, report.store.holdings.answers)

    def _queue(self) -> Iterator[Metric]:
        store, limits = self._report.store, self._report.settings.queue
        requests = _gauge("queue_requests", "Requests without a terminal answer, by state.", None, "state")
        for state in (State.RECEIVED, State.PENDING, State.LEASED, State.DROPPED):
            requests.add_metric([str(state)], store.counts[state])
        yield requests
        text = "Payloads of the requests in the queue, by state: those dropped are not in it."
        sizes = _gauge("queue_bytes", text, None, "state")
        for state in (State.RECEIVED, State.PENDING, State.LEASED):
            sizes.add_metric([str(state)], store.holdings.sizes[state])
        yield sizes
        yield _gauge("queue_devices", "Devices with a request in the queue.", len(store.holdings.devices))
        yield _gauge(
            "queue_max_requests", "Limit of queue_requests, all states but dropped together.", limits.max_requests
        )
        yield _gauge("queue_max_bytes", "Limit of queue_bytes, all states together.", limits.max_bytes)
        text = "Age of the oldest request in a state; answered: its answer is not delivered yet. 0: there is none."
        oldest, now_ms = _gauge("queue_oldest_age_seconds", text, None, "state"), self._report.clock.now_ms()
        for state in WAITING:
            oldest.add_metric([str(state)], max(0, now_ms - self._read.oldest_ms.get(state, now_ms)) / 1000)
        yield oldest

    def _broker(self) -> Iterator[Metric]:
        link = self._report.link.status
        yield _gauge("mqtt_connected", "1 while the broker is there.", link.is_connected)
        yield _counted("mqtt_connections", "Connections made to the broker.", link.connections)
        yield _gauge("mqtt_answers_in_flight", "Answers without a PUBACK so far.", self._report.deliver.in_flight)

    def _tiers(self) -> Iterator[Metric]:
        board = self._report.board
        up = _gauge("tier_up", "1 where a request would be sent to the tier now.", None, "tier")
        paused = _gauge("tier_paused", "1 while an operator holds the tier back.", None, "tier")
        breaker = _gauge("tier_breaker_state", "1 for the state the tier's breaker is in.", None, "tier", "state")
        busy = _gauge("tier_in_flight", "Attempts under way.", None, "tier")
        for lane in self._report.lanes:
            up.add_metric([lane.name], board.is_available(lane.name))
            paused.add_metric([lane.name], lane.name in board.paused)
            busy.add_metric([lane.name], lane.in_flight)
            for state in BreakerState:
                breaker.add_metric([lane.name, str(state)], board.breakers[lane.name].state is state)
        yield from (up, paused, breaker, busy)
        held_back = self._report.store.paused_routes
        routes = _gauge("route_paused", "1 while an operator holds the route back.", None, "route")
        for name in sorted({*self._routes(), *held_back}):
            routes.add_metric([name], name in held_back)
        yield routes

    def _limits(self) -> Iterator[Metric]:
        """Of the tiers that have a limit or a price; the money of a day or month begins anew at its end."""
        used = _gauge(
            "tier_limit_used", "What is used of a tier's limit, in the limit's own unit.", None, "tier", "limit"
        )
        limit = _gauge("tier_limit", "A tier's limit, in its own unit.", None, "tier", "limit")
        now_ms = self._report.clock.now_ms()
        for name, meter in self._report.board.meters.items():
            for level in meter.levels(now_ms):
                used.add_metric([name, level.name], level.used)
                if level.limit is not None:
                    limit.add_metric([name, level.name], level.limit)
        yield from (used, limit)

    def _workers(self) -> Iterator[Metric]:
        states = _gauge("worker_state", "1 for the state a local model's process is in.", None, "tier", "state")
        resident = _gauge("worker_resident_bytes", "Memory of a local model's process.", None, "tier")
        starts = _counter("worker_starts", "Times a local model was loaded.", "tier")
        for name, worker in self._report.workers.items():
            for state in WorkerState:
                states.add_metric([name, str(state)], worker.state is state)
            held_mb = None if worker.pid is None else self._report.memory.resident_mb(worker.pid)
            resident.add_metric([name], MB * (held_mb or 0.0))
            starts.add_metric([name], worker.starts)
        yield from (states, resident, starts)

    def _storage(self) -> Iterator[Metric]:
        disk, level = (
            self._report.room.report(),
            _gauge("disk_level", "1 for how full the disk is: enough, low or full.", None, "level"),
        )
        yield _gauge("disk_free_bytes", "Free on the file system of data_dir.", disk["free_bytes"])
        yield _gauge("disk_total_bytes", "Size of the file system of data_dir.", disk["total_bytes"])
        for name in DiskLevel:
            level.add_metric([str(name)], self._report.room.level is name)
        yield level
        yield _gauge("store_failing", "1 while nothing can be written.", self._report.intake.is_store_failing)
        if (size := self._read.size) is not None:
            database = _gauge("database_bytes", "The database file, by use.", None, "use")
            database.add_metric(["used"], size.used)
            database.add_metric(["unused"], size.unused)
            yield database

    def _power(self) -> Iterator[Metric]:
        """What the machine has no sensor for has no series."""
        families = {kind: _gauge(name, text, None, "sensor") for kind, (name, text) in SENSORS.items()}
        energy = _counter("energy_joules", "Energy since the start, by one of the processor's counters.", "sensor")
        for reading in self._read.sensors:
            (energy if reading.kind is Kind.ENERGY_J else families[reading.kind]).add_metric(
                [reading.sensor], reading.value
            )
        yield from (energy, *families.values())


def _gauge(name: str, text: str, value: float | None, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mqrouter_{name}", text, value=value, labels=labels or None)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"mqrouter_{name}", text, labels=labels)


def _counted(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"mqrouter_{name}", text, value=value)
