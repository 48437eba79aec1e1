"""The daemon: builds every part, supervises them, and drains them in order. The only place that knows the whole."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from mqrouter import __version__, wiring
from mqrouter.config import Loaded
from mqrouter.core.commands import CommandTopics
from mqrouter.core.rate import DeviceRates
from mqrouter.core.request import Incoming
from mqrouter.edge.disk import Disk
from mqrouter.edge.in_hand import InHandFile
from mqrouter.edge.metrics import Exposition, Metrics
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.mqtt.packets import NO_MATCHING_SUBSCRIBERS
from mqrouter.edge.power import Sensors
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.reading import oldest_pending_ms
from mqrouter.edge.store.salvage import latest_report
from mqrouter.edge.store.space import Space
from mqrouter.edge.store.store import Policy, Store
from mqrouter.edge.system import (
    LoopMonitor,
    ServiceManager,
    SystemClock,
    machine_clocks,
    new_request_id,
    spare_what_lasts,
)
from mqrouter.edge.trainer import Trainer
from mqrouter.edge.web.server import WebServer
from mqrouter.flow.auto_tune import AutoTune
from mqrouter.flow.bulletin import Bulletin
from mqrouter.flow.commands import Commands, RouteOrders
from mqrouter.flow.decide import Decide
from mqrouter.flow.deliver import Deliver, Publication
from mqrouter.flow.desk import Desk
from mqrouter.flow.events import Events
from mqrouter.flow.feedback import Feedbacks
from mqrouter.flow.intake import Intake
from mqrouter.flow.judge import Judge
from mqrouter.flow.ports import TierClient
from mqrouter.flow.room import Room
from mqrouter.flow.supervise import Supervisor
from mqrouter.flow.telemetry import TimedEmbedder
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.tracing import NoTraces, Traces
from mqrouter.flow.upkeep import Upkeep
from mqrouter.flow.wakeup import Wakeup
from mqrouter.gauges import Gauges
from mqrouter.lanes import Lanes
from mqrouter.notices import Notices
from mqrouter.recovery import open_database, recover
from mqrouter.reload import InForce, Reload, configure_logs
from mqrouter.report import Report
from mqrouter.serving import Serving
from mqrouter.trends import Trends

__all__ = ["Daemon", "configure_logs"]

log = structlog.get_logger("daemon")

ANSWER_GRACE_MS = 600_000  # ten minutes in which even an answer that came too late is offered
READY_WAIT_S = 10.0
DRAIN_STEP_S = 0.02


class Daemon:
    """One gateway. `clients` replaces the configured tiers' clients by name: the bench brings its own."""

    def __init__(self, loaded: Loaded, *, clients: Mapping[str, TierClient] | None = None) -> None:
        self._in_force = InForce(loaded, loaded.settings)
        self._settings = loaded.settings
        self._replaced = clients or {}
        self._clock = SystemClock()
        self._manager = ServiceManager()
        self._accepted, self._answered = Wakeup(), Wakeup()
        self._disk_full = Wakeup()
        self._started_s = self._clock.monotonic_s()
        self._stop = asyncio.Event()
        self._decide: Decide | None = None
        """None until the embedder is loaded."""
        self._web: WebServer | None = None
        self.ready = asyncio.Event()
        """Set once the models are loaded and the broker is subscribed."""

    def request_stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Returns after an ordered stop. Raises StoreLockedError, ModelFileError, ConfigError or what broke."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            self._traces = await self._open_traces(stack)
            self._disk = Disk(settings.gateway.data_dir, settings.disk.thresholds)
            self._database = Database(settings.database, make_room=self._disk.make_room, on_full=self._disk_full.give)
            await open_database(self._database, stack, self._manager)
            self._salvage = latest_report(settings.gateway.data_dir)
            dedupe_ms = int(1000 * settings.limits.dedupe_window_s)
            policy = Policy(settings.queue.limits, ANSWER_GRACE_MS, dedupe_ms, wiring.share_window_ms(settings))
            self._meters = wiring.meters(settings)
            self._metrics = Metrics(self._meters)
            self._store = Store(self._database, policy, meters=self._meters)
            self._in_hand = stack.enter_context(InHandFile(settings.gateway.data_dir / "in_hand"))
            recovery = await recover(self._store, self._clock, self._in_hand, settings.tiers)
            self._link = MqttLink(
                wiring.link_options(settings),
                on_message=self._received,
                on_published=self._published,
                on_connected=self._connected,
            )
            self._build_stages()
            await self._build_lanes(stack)
            self._monitor = LoopMonitor(self._manager, self._status_line, self._metrics.lagged)
            self._report = self._build_report()
            space, routes = Space(self._database), self._in_force.routes
            gauges = Gauges(self._report, space, Sensors(), self.ready.is_set, routes, self._spans)
            self.exposition = Exposition(self._metrics, gauges, gauges.refresh)
            self._desk = await self._build_desk(stack)
            self._build_bulletin()
            self._trends = Trends(self._report, self._metrics, Sensors())
            log.info(
                "daemon.started", version=__version__, pid=os.getpid(), recovered=recovery.released, dead=recovery.dead
            )
            async with Supervisor() as supervisor:
                await self._start_unless_stopped(supervisor, stack)
                await self._stop.wait()
                await self._drain(supervisor)
        log.info("daemon.stopped")

    async def _open_traces(self, stack: AsyncExitStack) -> Traces:
        export = wiring.span_export(self._settings)
        self._spans: Mapping[str, int] = {} if export is None else export.counts
        if export is None:
            return NoTraces()
        return wiring.tracing(self._settings, await stack.enter_async_context(export))

    # --- building -----------------------------------------------------------------------------------

    def _build_stages(self) -> None:
        settings, limits = self._settings, wiring.request_limits(self._settings)
        self._events = Events(self._link, self._clock, settings.prefix, settings.mqtt.events)
        self._board = TierBoard(wiring.breakers(settings), self._clock, random.random, meters=self._meters)
        self._room = Room(
            self._store,
            Space(self._database),
            self._disk,
            self._clock,
            retain_bytes=settings.limits.retain_bytes,
            keep_ms=int(1000 * settings.limits.dedupe_window_s),
            full=self._disk_full,
        )
        self._intake = Intake(
            self._store,
            self._link,
            self._clock,
            wiring.topic_map(settings),
            limits,
            rates=DeviceRates(settings.limits.device_rate_per_minute),
            max_redelivered=max(1_000, settings.mqtt.receive_maximum),
            new_id=new_request_id,
            accepted=self._accepted,
            answered=self._answered,
            telemetry=self._metrics,
            traces=self._traces,
            disk=lambda: self._room.level,
            feedbacks=Feedbacks(
                self._store,
                self._clock,
                wiring.topic_map(settings),
                limits.max_json_depth,
                rates=DeviceRates(settings.limits.device_rate_per_minute),
                routes=self._in_force.routes,
            ),
        )
        self._deliver = Deliver(
            self._store,
            self._link,
            self._clock,
            max_in_flight=settings.mqtt.max_inflight_answers,
            answered=self._answered,
            telemetry=self._metrics,
            traces=self._traces,
            finished=self._events.finished,
        )
        self._upkeep = Upkeep(
            self._store,
            self._board,
            self._clock,
            backoff=wiring.round_backoff(settings),
            retain_finished_s=settings.limits.retain_finished_s,
            retain_refused_s=settings.limits.retain_refused_s,
            judge=self._judge_so_far,
            machine=machine_clocks,
            answered=self._answered,
        )

    async def _build_lanes(self, stack: AsyncExitStack) -> None:
        self._lanes = Lanes(
            self._settings,
            self._store,
            self._board,
            self._clock,
            link=self._link,
            meters=self._meters,
            metrics=self._metrics,
            traces=self._traces,
            judge=self._judge,
            answered=self._answered,
            replaced=self._replaced,
        )
        await self._lanes.open(stack)

    def _build_bulletin(self) -> None:
        settings = self._settings
        self._notices = notices = Notices(
            started=settings,
            clock=self._clock,
            store=self._store,
            board=self._board,
            intake=self._intake,
            deliver=self._deliver,
            room=self._room,
            abstained=self._abstained,
            oldest_ms=lambda: self._database.read(oldest_pending_ms),
        )
        self._bulletin = Bulletin(
            self._link,
            self._clock,
            settings.prefix,
            info=lambda: notices.info(self._in_force.loaded.settings, self._in_force.loaded.config_hash),
            stats=notices.stats,
            standing=notices.standing,
            events=self._events,
            home_assistant=wiring.home_assistant(settings),
            interval_s=settings.mqtt.stats_interval_s,
        )
        desk = self._desk
        self._commands = Commands(
            self._link,
            self._clock,
            CommandTopics(settings.prefix),
            tuple(settings.tiers),
            is_on=settings.mqtt.commands,
            pause=self._desk.pause,
            resume=self._desk.resume,
            is_paused=self._board.paused.__contains__,
            routes=RouteOrders(desk.routes, desk.paused_routes, desk.pause_routes, desk.resume_routes),
            done=self._bulletin.look,
        )

    def _build_report(self) -> Report:
        return Report(
            settings=self._settings,
            clock=self._clock,
            link=self._link,
            store=self._store,
            intake=self._intake,
            room=self._room,
            salvage=self._salvage,
            deliver=self._deliver,
            board=self._board,
            lanes=self._lanes.lanes,
            workers=self._lanes.workers,
            lag_ms=self._monitor.lag_ms,
        )

    async def _build_desk(self, stack: AsyncExitStack) -> Desk:
        settings = self._settings
        return Desk(
            self._store,
            await stack.enter_async_context(Reader(settings.database, machine_clocks)),
            self._board,
            self._clock,
            trusted=[name for name, tier in settings.tiers.items() if tier.trusted],
            max_ttl_ms=int(1000 * settings.queue.max_age_s),
            answered=self._answered,
            accepted=self._accepted,
            undo_ms=int(1000 * settings.queue.undo_s),
            routes=self._in_force.routes,
        )

    def _build_web(self) -> WebServer:
        serving = Serving(
            report=self._report,
            notices=self._notices,
            trends=self._trends,
            desk=self._desk,
            exposition=self.exposition,
            store=self._store,
            clock=self._clock,
            traces=self._traces,
            accepted=self._accepted,
            answered=self._answered,
            loaded=lambda: self._in_force.loaded,
            judge=self._judge_so_far,
            embedder=lambda: self._embedder,
            status=self.status,
            why_not_ready=self._why_not_ready,
        )
        return serving.server()

    # --- starting -----------------------------------------------------------------------------------

    async def _start_unless_stopped(self, supervisor: Supervisor, stack: AsyncExitStack) -> None:
        """Everything runs, or a stop was asked for: embedding many examples takes a small device longer than it has."""
        async with asyncio.TaskGroup() as group:
            start = group.create_task(self._start(supervisor, stack), name="start")
            stop = group.create_task(self._stop.wait(), name="stop")
            await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
            start.cancel()
            stop.cancel()

    async def _start(self, supervisor: Supervisor, stack: AsyncExitStack) -> None:
        """Accepting begins at once; deciding when the embedder is loaded."""
        supervisor.start(
            {
                "loop": self._monitor.run,
                "intake": self._intake.run,
                "mqtt": self._link.run,
                "deliver": self._deliver.run,
                "bulletin": self._bulletin.run,
                "commands": self._commands.run,
                "upkeep": self._upkeep.run,
                "room": self._room.run,
                "trends": self._trends.run,
                "check": self._database.check,
            }
        )
        supervisor.let_end("check")
        self._web = self._build_web()
        await stack.enter_async_context(self._web)
        self._embedder, fingerprint = wiring.embedder(self._settings)
        await self._embedder.start()
        stack.push_async_callback(self._embedder.close)
        vectors = wiring.example_vectors(self._settings, fingerprint)
        self._decide = Decide(
            self._store,
            TimedEmbedder(self._embedder, self._clock, self._metrics),
            await wiring.build_judge(self._settings, self._embedder, vectors),
            self._board,
            self._clock,
            wiring.request_limits(self._settings),
            self._in_hand,
            accepted=self._accepted,
            answered=self._answered,
            topics=wiring.topic_map(self._settings),
            refresh_load=self._lanes.load.refresh,
            telemetry=self._metrics,
            traces=self._traces,
            decided=self._events.decided,
        )
        self._reload = Reload(self._in_force, self._decide, self._embedder, vectors, self._lanes.log_texts)
        supervisor.start({"decide": self._decide.run, **self._lanes.services()})
        if (schedule := wiring.auto_tune(self._settings)) is not None:
            trainer = Trainer(self._in_force.loaded.files[0], self._settings.gateway.data_dir / "cache")
            tune = AutoTune(self._store, self._clock, schedule, trainer.retrain, self._reload.take_head)
            supervisor.start({"auto_tune": tune.run})
        supervisor.start({"readiness": self._say_ready})
        supervisor.let_end("readiness")

    async def _say_ready(self) -> None:
        """Tells the service manager once the broker is there too; a missing broker is no reason to be restarted."""
        while not self._link.ready.is_set():
            self._manager.notify(STATUS="waiting for the broker", EXTEND_TIMEOUT_USEC=int(3e6 * READY_WAIT_S))
            try:
                async with asyncio.timeout(READY_WAIT_S):
                    await self._link.ready.wait()
            except TimeoutError:
                log.warning("daemon.broker_missing", error=self._link.status.error)
        elapsed_ms = round(1000 * (self._clock.monotonic_s() - self._started_s))
        log.info("daemon.ready", elapsed_ms=elapsed_ms, routes=len(self._settings.routes))
        self._manager.notify(READY=1, STATUS=self._report.line())
        self.ready.set()
        await self._lanes.load_models()
        spare_what_lasts()

    # --- stopping -----------------------------------------------------------------------------------

    async def _drain(self, supervisor: Supervisor) -> None:
        """Takes nothing new, lets attempts under way end, sends what is answered, says goodbye: within the limit."""
        deadline_s = self._clock.monotonic_s() + self._settings.service.drain_timeout_s
        self._manager.notify(STOPPING=1, STATUS="draining")
        log.info("daemon.stopping", in_flight=sum(lane.in_flight for lane in self._lanes.lanes))
        supervisor.let_end("intake", "mqtt", *self._lanes.names)
        self._intake.stop()
        self._lanes.stop()
        await supervisor.cancel("decide", "readiness", "auto_tune")
        await supervisor.wait_for(*self._lanes.names, timeout_s=(deadline_s - self._clock.monotonic_s()) * 0.75)
        await supervisor.cancel(*self._lanes.names)
        await self._store.release_leases(self._clock.now_ms())
        self._deliver.look_again()
        # Its wake-up call is for it alone: who waits here for one would take it away.
        while not self._deliver.is_done and self._link.is_connected and self._clock.monotonic_s() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_STEP_S)
        await self._link.close()

    async def reload(self, load: Callable[[], Loaded]) -> bool:
        """A valid configuration replaces routes, prompts, routing and log; a bad one changes nothing."""
        if not self.ready.is_set():
            log.warning("daemon.reload_refused", problems=["the daemon is still starting"])
            return False
        if not await self._reload.take(load):
            return False
        loaded = self._in_force.loaded
        self._manager.notify(STATUS=self._report.line())
        self._bulletin.changed()
        log.info("daemon.reloaded", config_hash=loaded.config_hash, routes=len(loaded.settings.routes))
        spare_what_lasts()
        return True

    # --- answers to the outside ---------------------------------------------------------------------

    def _judge(self) -> Judge:
        assert self._decide is not None  # the lanes start after it
        return self._decide.judge

    def _judge_so_far(self) -> Judge | None:
        return None if self._decide is None else self._decide.judge

    def _abstained(self) -> int:
        return 0 if self._decide is None else self._decide.abstained

    def _received(self, incoming: Incoming) -> None:
        if not self._commands.take(incoming) and not self._bulletin.take_birth(incoming.topic, incoming.payload):
            self._intake.put(incoming)

    def _connected(self, is_session_present: bool) -> None:
        self._intake.connected(is_session_present=is_session_present)
        self._deliver.reconnected()
        self._bulletin.connected()

    def _published(self, number: int, code: int) -> None:
        if code == NO_MATCHING_SUBSCRIBERS:
            self._deliver.acknowledged(number, Publication.NO_SUBSCRIBER)
        else:
            self._deliver.acknowledged(number, Publication.REFUSED if code >= 0x80 else Publication.TAKEN)

    def _why_not_ready(self) -> list[str]:
        """Returns why no questions are taken or decided; tiers that are down are no reason, since they queue."""
        starting = [] if self.ready.is_set() else ["starting"]
        cut_off = [] if self._link.is_connected else ["not connected to the broker"]
        return [*starting, *cut_off, *self._report.degraded()]

    def _status_line(self) -> str:
        return self._report.line()

    def status(self) -> dict[str, Any]:
        """Returns what `mqrouter status` shows; JSON-ready."""
        return self._report.full(
            config_hash=self._in_force.loaded.config_hash,
            restart_needed=self._in_force.restart_needed(),
            is_ready=self.ready.is_set(),
            uptime_s=self._clock.monotonic_s() - self._started_s,
            abstained=self._abstained(),
            web=self._web,
        )
