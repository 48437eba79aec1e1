"""The daemon: builds every part, supervises them, and drains them in order. The only place that knows the whole."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

from mqrouter import __version__, logs, wiring
from mqrouter.config import Loaded
from mqrouter.console import Console
from mqrouter.core.commands import CommandTopics
from mqrouter.core.rate import DeviceRates
from mqrouter.core.request import Incoming, RequestId
from mqrouter.core.timeline import Anchor, resume
from mqrouter.edge.chat import ChatWorker
from mqrouter.edge.disk import Disk
from mqrouter.edge.in_hand import InHandFile
from mqrouter.edge.metrics import Exposition, Metrics
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.mqtt.packets import NO_MATCHING_SUBSCRIBERS
from mqrouter.edge.power import Sensors
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.leases import Recovery
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.reading import oldest_pending_ms
from mqrouter.edge.store.salvage import latest_report
from mqrouter.edge.store.space import Space
from mqrouter.edge.store.store import Policy, Store
from mqrouter.edge.system import LoopMonitor, ServiceManager, SystemClock, machine_clocks, minute_of_day
from mqrouter.edge.trainer import Trainer
from mqrouter.edge.web import api
from mqrouter.edge.web.pages.site import PageSite
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.server import WebServer
from mqrouter.errors import ConfigError, MqrouterError, Problem
from mqrouter.flow.attempt import Attempts
from mqrouter.flow.auto_tune import AutoTune
from mqrouter.flow.bring_in import BringIn
from mqrouter.flow.bulletin import Bulletin
from mqrouter.flow.commands import Commands, RouteOrders
from mqrouter.flow.decide import Decide
from mqrouter.flow.deliver import Deliver, Publication
from mqrouter.flow.desk import Desk
from mqrouter.flow.errands import Errands
from mqrouter.flow.events import Events
from mqrouter.flow.explain import Explain
from mqrouter.flow.feedback import Feedbacks
from mqrouter.flow.forward import Lane
from mqrouter.flow.intake import Intake
from mqrouter.flow.judge import Judge
from mqrouter.flow.keep_warm import KeepWarm
from mqrouter.flow.load import Load
from mqrouter.flow.local_model import Keeper
from mqrouter.flow.metering import Metered, nobody
from mqrouter.flow.ports import TierClient
from mqrouter.flow.progress import Progress
from mqrouter.flow.room import Room
from mqrouter.flow.supervise import Supervisor
from mqrouter.flow.telemetry import TimedEmbedder
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.tracing import NoTraces, Traces
from mqrouter.flow.upkeep import Upkeep
from mqrouter.flow.wakeup import Wakeup
from mqrouter.gauges import Gauges
from mqrouter.log_file import LogLimits
from mqrouter.notices import Notices
from mqrouter.report import Report
from mqrouter.routing.registry import strategy_names
from mqrouter.settings import LocalTier, LogSettings, Settings
from mqrouter.trends import Trends

log = structlog.get_logger("daemon")

ANSWER_GRACE_MS = 600_000  # ten minutes in which even an answer that came too late is offered
READY_WAIT_S = 10.0
RELOADABLE = frozenset({"routes", "prompts", "routing", "privacy", "log", "include"})


class Daemon:
    """One gateway. `clients` replaces the configured tiers' clients by name: the bench brings its own."""

    def __init__(self, loaded: Loaded, *, clients: Mapping[str, TierClient] | None = None) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._replaced = clients or {}
        self._clock = SystemClock()
        self._manager = ServiceManager()
        self._accepted, self._answered = Wakeup(), Wakeup()
        self._disk_full = Wakeup()
        self._started_s = self._clock.monotonic_s()
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._decide: Decide | None = None
        """None until the embedder is loaded."""
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
            self._database = await self._open_database(stack)
            self._salvage = latest_report(settings.gateway.data_dir)
            dedupe_ms = int(1000 * settings.limits.dedupe_window_s)
            policy = Policy(settings.queue.limits, ANSWER_GRACE_MS, dedupe_ms, wiring.share_window_ms(settings))
            self._meters = wiring.meters(settings)
            self._metrics = Metrics(self._meters)
            self._store = Store(self._database, policy, meters=self._meters)
            self._in_hand = stack.enter_context(InHandFile(settings.gateway.data_dir / "in_hand"))
            recovery = await self._recover()
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
            gauges = Gauges(self._report, Space(self._database), Sensors(), self.ready.is_set, self._spans)
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

    async def _recover(self) -> Recovery:
        """The gateway's time goes on where it stood, and so does every request."""
        anchor, latest_ms = await self._store.anchor()
        clocks = machine_clocks()
        now_ms = resume(anchor, latest_ms, clocks)
        self._clock.start_at(now_ms)
        await self._store.set_anchor(Anchor(now_ms, clocks))
        # Where the machine itself went down, or the daemon ended by its own decision, no request is to blame for that.
        is_same_boot = anchor is not None and anchor.clocks.boot_id == clocks.boot_id
        has_crashed = is_same_boot and self._in_hand.was_left
        return await self._store.recover(
            now_ms, self._settings.tiers, in_hand=self._in_hand.found, has_crashed=has_crashed
        )

    async def _open_database(self, stack: AsyncExitStack) -> Database:
        """To mend a damaged one takes its time: the service manager hears that we live, and does not begin anew."""
        database = Database(self._settings.database, make_room=self._disk.make_room, on_full=self._disk_full.give)
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(stack.enter_async_context(database), name="store.open")
            while not (await asyncio.wait([opening], timeout=READY_WAIT_S))[0]:
                extension_us = int(3e6 * READY_WAIT_S)
                self._manager.notify(STATUS="opening the database", EXTEND_TIMEOUT_USEC=extension_us)
        return database

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
            new_id=_new_id,
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
                routes=lambda: self._loaded.settings.routes,
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
            judge=lambda: None if self._decide is None else self._decide.judge,
            machine=machine_clocks,
            answered=self._answered,
        )

    async def _build_lanes(self, stack: AsyncExitStack) -> None:
        self._board.paused.update(await self._store.paused())
        for name, until_ms in (await self._store.holds()).items():
            if name in self._board.breakers and (left_ms := until_ms - self._clock.now_ms()) > 0:
                self._board.hold(name, left_ms / 1000)
        self._workers: dict[str, ChatWorker] = {}
        self._warmers: dict[str, KeepWarm] = {}
        self._keepers: dict[str, Keeper] = {}
        self._load = Load(self._store, self._board, self._clock, wiring.capacities(self._settings))
        self._lanes: list[Lane] = []
        self._attempts: list[Attempts] = []
        topics, interval_s = wiring.topic_map(self._settings), self._settings.mqtt.progress_interval_s
        progress = Progress(self._link, topics, interval_s)
        for name, tier in self._settings.tiers.items():
            client = await self._client(name, stack)
            meter = self._meters.get(name)
            attempts = Attempts(
                name,
                Metered(
                    self._traces.follow(name, client),
                    nobody if meter is None else meter.call_of,
                    partial(self._metrics.used, name),
                ),
                wiring.attempt_limits(self._settings, tier),
                self._store,
                self._board,
                self._clock,
                random.random,
                judge=self._judge,
                answered=self._answered,
                progress=progress,
            )
            lane = Lane(
                name,
                client,
                attempts,
                self._store,
                self._board,
                self._clock,
                concurrency=tier.concurrency,
                refresh_load=self._load.refresh,
                telemetry=self._metrics,
                traces=self._traces,
            )
            self._lanes.append(lane)
            self._attempts.append(attempts)

    async def _client(self, name: str, stack: AsyncExitStack) -> TierClient:
        tier = self._settings.tiers[name]
        if name in self._replaced:
            return self._replaced[name]
        if isinstance(tier, LocalTier):
            worker = self._workers[name] = wiring.chat_worker(self._settings, tier)
            self._keepers[name] = wiring.keeper(tier, worker, self._clock.monotonic_s)
            stack.push_async_callback(worker.close)
            return worker
        client = await stack.enter_async_context(wiring.upstream_client(name, tier))
        if (rule := wiring.warm_rule(tier)) is not None:
            self._warmers[f"warm.{name}"] = KeepWarm(name, client, rule, self._board, self._clock, minute_of_day)
        return client

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
            abstained=lambda: 0 if self._decide is None else self._decide.abstained,
            oldest_ms=lambda: self._database.read(oldest_pending_ms),
        )
        self._bulletin = Bulletin(
            self._link,
            self._clock,
            settings.prefix,
            info=lambda: notices.info(self._loaded.settings, self._loaded.config_hash),
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
            lanes=self._lanes,
            workers=self._workers,
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
            routes=lambda: self._loaded.settings.routes,
        )

    def _build_web(self) -> WebServer:
        settings = self._settings
        bring_in = BringIn(
            self._store,
            self._clock,
            wiring.topic_map(settings),
            wiring.request_limits(settings),
            new_id=_new_id,
            accepted=self._accepted,
            answered=self._answered,
            traces=self._traces,
        )
        errands = Errands(self._room, self._store, self._desk, self._clock, lambda: self._loaded.settings.routes)
        routes = api.routes(
            self._desk,
            bring_in=bring_in.bring_in,
            status=self.status,
            why_not_ready=self._why_not_ready,
            errands=errands.by_name(),
        )
        routes.append(api.metrics_route(self.exposition.content, self.exposition.content_type))
        options = wiring.web_options(settings)
        site = PageSite(self._sources(errands), options.tcp, self._clock.monotonic_s)
        return WebServer(options, routes, self._clock.monotonic_s, site)

    def _sources(self, errands: Errands) -> Sources:
        """What the pages show."""
        console = Console(self._report, self._notices, lambda: self._loaded, self._trends.oldest_ms)
        explain = Explain(
            lambda: None if self._decide is None else self._decide.judge, lambda: self._embedder, self._board
        )
        return Sources(
            gateway=self._settings.gateway.name,
            desk=self._desk,
            trends=self._trends,
            status=self.status,
            snapshot=console.snapshot,
            info=console.info,
            explain=explain.explain,
            feedback=errands.by_name()["feedback"],
            strategies=lambda: sorted(strategy_names()),
            settings=console.settings,
            models=console.models,
        )

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
        self._web = await stack.enter_async_context(self._build_web())
        self._embedder, fingerprint = wiring.embedder(self._settings)
        await self._embedder.start()
        stack.push_async_callback(self._embedder.close)
        self._vectors = wiring.example_vectors(self._settings, fingerprint)
        self._decide = Decide(
            self._store,
            TimedEmbedder(self._embedder, self._clock, self._metrics),
            await wiring.build_judge(self._settings, self._embedder, self._vectors),
            self._board,
            self._clock,
            wiring.request_limits(self._settings),
            self._in_hand,
            accepted=self._accepted,
            answered=self._answered,
            topics=wiring.topic_map(self._settings),
            refresh_load=self._load.refresh,
            telemetry=self._metrics,
            traces=self._traces,
            decided=self._events.decided,
        )
        supervisor.start({"decide": self._decide.run} | {f"lane.{lane.name}": lane.run for lane in self._lanes})
        supervisor.start({name: warmer.run for name, warmer in self._warmers.items()})
        supervisor.start({f"keeper.{name}": keeper.run for name, keeper in self._keepers.items()})
        if (schedule := wiring.auto_tune(self._settings)) is not None:
            trainer = Trainer(self._loaded.files[0], self._settings.gateway.data_dir / "cache")
            tune = AutoTune(self._store, self._clock, schedule, trainer.retrain, self._take_head)
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
        for name, tier in self._settings.tiers.items():
            if isinstance(tier, LocalTier) and tier.start == "at_start" and name in self._workers:
                await self._workers[name].probe()

    # --- stopping -----------------------------------------------------------------------------------

    async def _drain(self, supervisor: Supervisor) -> None:
        """Takes nothing new, lets attempts under way end, sends what is answered, says goodbye: within the limit."""
        deadline_s = self._clock.monotonic_s() + self._settings.service.drain_timeout_s
        self._manager.notify(STOPPING=1, STATUS="draining")
        log.info("daemon.stopping", in_flight=sum(lane.in_flight for lane in self._lanes))
        lanes = [f"lane.{lane.name}" for lane in self._lanes]
        supervisor.let_end("intake", "mqtt", *lanes)
        self._intake.stop()
        for lane in self._lanes:
            lane.stop()
        await supervisor.cancel("decide", "readiness", "auto_tune")
        await supervisor.wait_for(*lanes, timeout_s=(deadline_s - self._clock.monotonic_s()) * 0.75)
        await supervisor.cancel(*lanes)
        await self._store.release_leases(self._clock.now_ms())
        while self._deliver.in_flight and self._link.is_connected and self._clock.monotonic_s() < deadline_s:
            await self._answered.wait(0.05)
        await self._link.close()

    async def reload(self, load: Callable[[], Loaded]) -> bool:
        """A valid configuration replaces routes, prompts, routing and log; a bad one changes nothing."""
        if not self.ready.is_set():
            log.warning("daemon.reload_refused", problems=["the daemon is still starting"])
            return False
        async with self._reloading:
            return await self._reload(load)

    async def _reload(self, load: Callable[[], Loaded]) -> bool:
        try:
            loaded = load()
            if new_tiers := loaded.settings.tiers.keys() - self._settings.tiers.keys():
                raise ConfigError([Problem("tiers", f"{', '.join(sorted(new_tiers))} added: restart the daemon")])
            judge = await wiring.build_judge(self._judged_by(loaded.settings), self._embedder, self._vectors)
            configure_logs(loaded.settings.log)
        except ConfigError as error:
            log.error("daemon.reload_refused", problems=[str(problem) for problem in error.problems])
            return False
        except MqrouterError as error:
            log.error("daemon.reload_refused", problems=[str(error)])
            return False
        waiting = changed_sections(self._settings, loaded.settings) - RELOADABLE
        if waiting:
            log.warning("daemon.restart_needed", sections=sorted(waiting))
        self._loaded = loaded
        assert self._decide is not None  # ready
        self._decide.judge = judge
        for attempts in self._attempts:
            attempts.logs_text = loaded.settings.log.include_text
        self._manager.notify(STATUS=self._report.line())
        self._bulletin.changed()
        log.info("daemon.reloaded", config_hash=loaded.config_hash, routes=len(loaded.settings.routes))
        return True

    async def _take_head(self) -> None:
        """The judge decides by the head that is on disk now. Raises MqrouterError, and the old one goes on."""
        async with self._reloading:
            assert self._decide is not None  # it runs beside it
            self._decide.judge = await wiring.build_judge(
                self._judged_by(self._loaded.settings), self._embedder, self._vectors
            )

    def _judged_by(self, settings: Settings) -> Settings:
        """The tiers and listeners stay as they run; what may be seen by a tier is taken from it at once."""
        tiers = wiring.trusted_by_both(self._settings.tiers, settings.tiers)
        return settings.model_copy(update={"tiers": tiers, "listeners": self._settings.listeners})

    # --- answers to the outside ---------------------------------------------------------------------

    def _judge(self) -> Judge:
        assert self._decide is not None  # the lanes start after it
        return self._decide.judge

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
            config_hash=self._loaded.config_hash,
            restart_needed=sorted(changed_sections(self._settings, self._loaded.settings) - RELOADABLE),
            is_ready=self.ready.is_set(),
            uptime_s=self._clock.monotonic_s() - self._started_s,
            abstained=0 if self._decide is None else self._decide.abstained,
        )


def _new_id() -> RequestId:
    return RequestId(uuid.uuid4().hex[:16])


def changed_sections(old: Settings, new: Settings) -> set[str]:
    return {name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)}


def configure_logs(settings: LogSettings) -> None:
    """The log is as configured, its file opened anew. Raises ConfigError, and nothing changes."""
    limits = LogLimits(settings.max_bytes, settings.keep_days, settings.keep_files)
    try:
        file = logs.open_file(settings.file, limits)
    except OSError as error:
        raise ConfigError([Problem("log.file", f"{settings.file} cannot be written: {error.strerror}")]) from error
    logs.configure(
        level=settings.level,
        fmt=settings.format,
        include_text=settings.include_text,
        levels=settings.levels,
        stream=file,
    )
    logs.take_file(file)
