"""One lane for each configured tier, with its client, and what loads, watches and warms the models behind them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

from mqrouter import wiring
from mqrouter.core.spending import Meter
from mqrouter.edge.chat import ChatWorker
from mqrouter.edge.metrics import Metrics
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.store.store import Store
from mqrouter.edge.system import SystemClock, minute_of_day
from mqrouter.flow.attempt import Attempts
from mqrouter.flow.forward import Lane
from mqrouter.flow.judge import Judge
from mqrouter.flow.keep_warm import KeepWarm
from mqrouter.flow.load import Load
from mqrouter.flow.local_model import Keeper
from mqrouter.flow.metering import Metered, nobody
from mqrouter.flow.ports import TierClient
from mqrouter.flow.progress import Progress
from mqrouter.flow.supervise import Service
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.tracing import Traces
from mqrouter.flow.wakeup import Wakeup
from mqrouter.settings import LocalTier, Settings, Tier


class Lanes:
    """`replaced` are clients to use instead of the configured tiers', by name."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        board: TierBoard,
        clock: SystemClock,
        *,
        link: MqttLink,
        meters: Mapping[str, Meter],
        metrics: Metrics,
        traces: Traces,
        judge: Callable[[], Judge],
        answered: Wakeup,
        replaced: Mapping[str, TierClient],
    ) -> None:
        self._settings = settings
        self._store = store
        self._board = board
        self._clock = clock
        self._meters = meters
        self._metrics = metrics
        self._traces = traces
        self._judge = judge
        self._answered = answered
        self._replaced = replaced
        self._progress = Progress(link, wiring.topic_map(settings), settings.mqtt.progress_interval_s)
        self._attempts: list[Attempts] = []
        self._warmers: dict[str, KeepWarm] = {}
        self._keepers: dict[str, Keeper] = {}
        self.load = Load(store, board, clock, wiring.capacities(settings))
        self.lanes: list[Lane] = []
        self.workers: dict[str, ChatWorker] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        """Every tier has its lane, not yet running, and the board knows what an earlier life was told of the tiers.

        The clients close with the stack. Raises ConfigError where a key's reference leads nowhere.
        """
        self._board.paused.update(await self._store.paused())
        for name, until_ms in (await self._store.holds()).items():
            if name in self._board.breakers and (left_ms := until_ms - self._clock.now_ms()) > 0:
                self._board.hold(name, left_ms / 1000)
        for name, tier in self._settings.tiers.items():
            self._add(name, tier, await self._client(name, tier, stack))

    def services(self) -> dict[str, Service]:
        """Returns what runs as long as the daemon decides, by name."""
        return {
            **{f"lane.{lane.name}": lane.run for lane in self.lanes},
            **{f"warm.{name}": warmer.run for name, warmer in self._warmers.items()},
            **{f"keeper.{name}": keeper.run for name, keeper in self._keepers.items()},
        }

    async def load_models(self) -> None:
        """The local models that are to be there from the start are loaded, or their tiers down."""
        for name, worker in self.workers.items():
            tier = self._settings.tiers[name]
            if isinstance(tier, LocalTier) and tier.start == "at_start":
                await worker.probe()

    def log_texts(self, is_on: bool) -> None:
        for attempts in self._attempts:
            attempts.logs_text = is_on

    @property
    def names(self) -> list[str]:
        """Of the services that end once they are stopped."""
        return [f"lane.{lane.name}" for lane in self.lanes]

    def stop(self) -> None:
        """Attempts under way may end, and no new ones begin."""
        for lane in self.lanes:
            lane.stop()

    def _add(self, name: str, tier: Tier, client: TierClient) -> None:
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
            progress=self._progress,
        )
        lane = Lane(
            name,
            client,
            attempts,
            self._store,
            self._board,
            self._clock,
            concurrency=tier.concurrency,
            refresh_load=self.load.refresh,
            telemetry=self._metrics,
            traces=self._traces,
        )
        self.lanes.append(lane)
        self._attempts.append(attempts)

    async def _client(self, name: str, tier: Tier, stack: AsyncExitStack) -> TierClient:
        if name in self._replaced:
            return self._replaced[name]
        if isinstance(tier, LocalTier):
            worker = self.workers[name] = wiring.chat_worker(self._settings, tier)
            self._keepers[name] = wiring.keeper(tier, worker, self._clock.monotonic_s)
            stack.push_async_callback(worker.close)
            return worker
        client = await stack.enter_async_context(wiring.upstream_client(name, tier))
        if (rule := wiring.warm_rule(tier)) is not None:
            self._warmers[name] = KeepWarm(name, client, rule, self._board, self._clock, minute_of_day)
        return client
