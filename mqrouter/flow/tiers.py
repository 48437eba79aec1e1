"""Which tiers can be used now, and who must hear of it when that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import structlog

from mqrouter.core.breaker import Breaker, BreakerState
from mqrouter.core.latency import RecentLatency
from mqrouter.core.load import TierLoad
from mqrouter.core.records import Pause, split_tiers
from mqrouter.core.spending import Meter, Over
from mqrouter.core.waiting import TierStanding
from mqrouter.flow.ports import Chance, Clock
from mqrouter.flow.wakeup import Wakeup
from mqrouter.routing.signals import TierSignal

log = structlog.get_logger("tier")


class TierBoard:
    """The breakers of all tiers: the lanes report here, and are woken here."""

    def __init__(
        self,
        breakers: Mapping[str, Breaker],
        clock: Clock,
        chance: Chance,
        *,
        meters: Mapping[str, Meter] | None = None,
    ) -> None:
        self.breakers = breakers
        self.meters = meters or {}
        """Of the tiers that have a limit or a price."""
        self._at_limit: set[str] = set()
        self.wakeups = {name: Wakeup() for name in breakers}
        self.paused: dict[str, Pause] = {}
        """Tiers an operator holds back: for the requests they are as good as down."""
        self.latencies = {name: RecentLatency() for name in breakers}
        """Of whole answers that were fit to send."""
        self.used_at_s: dict[str, float] = {}
        """When each tier gave its latest answer, by the monotonic clock."""
        self.tried: set[str] = set()
        """Tiers of which anything is known since the start: they answered, failed, or were probed."""
        self.in_flight: Counter[str] = Counter()
        self.loads: Mapping[str, TierLoad] = {}
        """How busy each tier is, as of late."""
        self._clock = clock
        self._chance = chance

    def is_available(self, name: str) -> bool:
        breaker = self.breakers.get(name)  # a row may name a tier that a reload took away
        is_up = breaker is not None and name not in self.paused and breaker.is_available(self._clock.monotonic_s())
        return is_up and not ((meter := self.meters.get(name)) is not None and meter.is_over(self._clock.now_ms()))

    def over(self, name: str) -> Over | None:
        """Returns the tier's own limit that it is at; None where there is room."""
        meter = self.meters.get(name)
        return None if meter is None else meter.over(self._clock.now_ms())

    def over_s(self, name: str) -> float:
        """Returns the seconds until the tier has room again; 0 where it has."""
        over = self.over(name)
        return 0.0 if over is None else (over.until_ms - self._clock.now_ms()) / 1000

    def why_limited(self, tiers: Iterable[str]) -> str:
        """Returns the limits that these tiers are at, to be put behind a sentence; empty where there are none."""
        found = [f"{name} is at its limit, {over.reason}" for name in tiers if (over := self.over(name)) is not None]
        return f" ({'; '.join(found)})" if found else ""

    def check_limit(self, name: str) -> None:
        """Called when a tier's use has changed: at a limit, the next tiers are to take over."""
        over = self.over(name)
        if over is not None and name not in self._at_limit:
            self._at_limit.add(name)
            log.info("tier.limit_reached", tier=name, reason=over.reason, for_s=round(self.over_s(name), 1))
            self.wake_all()
        elif over is None:
            self._at_limit.discard(name)

    def signals(self) -> dict[str, TierSignal]:
        """Returns how each tier is doing, for a strategy to look at."""
        return {name: self._signal(name, recent.p50_ms) for name, recent in self.latencies.items()}

    def _signal(self, name: str, p50_ms: float | None) -> TierSignal:
        wait_ms = 1000 * load.wait_s if (load := self.loads.get(name)) is not None else 0.0
        latency_ms = None if p50_ms is None else p50_ms + wait_ms
        return TierSignal(self.is_available(name), latency_ms, self.over(name))

    @property
    def overloaded(self) -> frozenset[str]:
        """Returns the tiers whose queue is too long: the next ones help out."""
        return frozenset(name for name, load in self.loads.items() if load.is_overloaded)

    def standing(self) -> dict[str, TierStanding]:
        """Returns how each tier stands, for people to read."""
        return {name: self._standing(name, breaker) for name, breaker in self.breakers.items()}

    def _standing(self, name: str, breaker: Breaker) -> TierStanding:
        now_s, over, pause = self._clock.monotonic_s(), self.over(name), self.paused.get(name)
        return TierStanding(
            is_up=self.is_available(name),
            paused_by=None if pause is None else pause.actor,
            is_open=breaker.state is BreakerState.OPEN,
            reason=breaker.reason or None,
            probe_in_s=breaker.probe_in_s(now_s),
            held_s=breaker.held_s(now_s),
            limit=None if over is None else over.reason,
            limit_for_s=self.over_s(name),
            in_flight=self.in_flight[name],
        )

    def pause(self, name: str, pause: Pause) -> None:
        self.paused[name] = pause
        self.wake_all()

    def resume(self, name: str) -> None:
        self.paused.pop(name, None)
        self.wake_all()

    def look_again(self) -> None:
        """Tiers that are down are probed now, however long the pause was to be."""
        for breaker in self.breakers.values():
            breaker.hurry(self._clock.monotonic_s())
        self.wake_all()

    def first_available(self, tiers: Iterable[str]) -> str | None:
        return next((name for name in tiers if self.is_available(name)), None)

    def todo_lists_of(self, name: str, todo_lists: Collection[str]) -> list[str]:
        """Returns the tier lists whose rows this tier is to take now."""
        overloaded = self.overloaded
        return [todo for todo in todo_lists if name in self._takers(split_tiers(todo), overloaded)]

    def wake_for(self, tiers: Iterable[str]) -> None:
        for name in self._takers(tiers, self.overloaded):
            self.wakeups[name].give()

    def _takers(self, tiers: Iterable[str], overloaded: Collection[str]) -> Iterator[str]:
        """Yields the first tier that is up, and the next one as long as all before it are overloaded."""
        for name in tiers:
            if self.is_available(name):
                yield name
                if name not in overloaded:
                    return

    def wake_all(self) -> None:
        for wakeup in self.wakeups.values():
            wakeup.give()

    def answered(self, name: str, latency_ms: float) -> None:
        """The tier gave a whole answer that is fit to send, `latency_ms` after it was asked."""
        self.latencies[name].add(latency_ms)
        self.used_at_s[name] = self._clock.monotonic_s()
        self.succeeded(name)

    def succeeded(self, name: str) -> None:
        breaker = self.breakers[name]
        was = breaker.state
        breaker.succeed()
        self._changed(name, was)

    def failed(self, name: str, reason: str) -> None:
        breaker = self.breakers[name]
        was = breaker.state
        breaker.fail(reason, self._clock.monotonic_s(), self._chance())
        self._changed(name, was)

    def unreachable(self, name: str, reason: str) -> None:
        breaker = self.breakers[name]
        was = breaker.state
        breaker.trip(reason, self._clock.monotonic_s(), self._chance())
        self._changed(name, was)

    def hold(self, name: str, for_s: float) -> None:
        self.breakers[name].hold(self._clock.monotonic_s() + for_s)
        self.wake_all()

    def probed(self, name: str, is_up: bool) -> None:
        breaker = self.breakers[name]
        was = breaker.state
        if is_up:
            breaker.probe_succeeded()
        else:
            breaker.probe_failed(self._clock.monotonic_s(), self._chance())
        self._changed(name, was)

    def _changed(self, name: str, was: BreakerState) -> None:
        self.tried.add(name)
        breaker = self.breakers[name]
        if breaker.state is not was:
            write = log.warning if breaker.state is BreakerState.OPEN else log.info
            write("tier.breaker_changed", tier=name, old=str(was), new=str(breaker.state), reason=breaker.reason)
            self.wake_all()
