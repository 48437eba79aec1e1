"""How busy the tiers are: what waits for each, counted no oftener than it matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Protocol

from mqrouter.core.load import Capacity, TierLoad, expected_wait_s
from mqrouter.core.records import split_tiers
from mqrouter.core.states import State
from mqrouter.flow.ports import Clock
from mqrouter.flow.tiers import TierBoard

REFRESH_S = 0.25
COUNTED = 1_000
"""Requests of one tier list that are counted at most: a longer queue is too long for every limit."""


class LoadStore(Protocol):
    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def todo_lists(self) -> Collection[str]: ...

    async def count_due(self, limit: int) -> Mapping[str, int]: ...


class Load:
    """Keeps `board.loads` fresh; a tier that becomes overloaded, or no longer is, wakes the others."""

    def __init__(self, store: LoadStore, board: TierBoard, clock: Clock, capacities: Mapping[str, Capacity]) -> None:
        self._store = store
        self._board = board
        self._clock = clock
        self._capacities = capacities
        self._counted_at_s = -REFRESH_S

    async def refresh(self) -> None:
        """The loads are no older than REFRESH_S, and fresh while others help out. Raises StoreError."""
        now_s = self._clock.monotonic_s()
        if now_s - self._counted_at_s < REFRESH_S and not self._board.overloaded:
            return
        self._counted_at_s = now_s
        waiting = await self._store.count_due(COUNTED) if self._store.counts[State.PENDING] else {}
        ahead = Counter(self._board.in_flight)
        for todo, count in waiting.items():
            if (name := self._board.first_available(split_tiers(todo))) is not None:
                ahead[name] += count
        before = self._board.overloaded
        self._board.loads = {name: self._load(name, ahead[name]) for name in self._capacities}
        if self._board.overloaded != before:
            self._board.wake_all()

    def _load(self, name: str, ahead: int) -> TierLoad:
        capacity, p50_ms = self._capacities[name], self._board.latencies[name].p50_ms
        wait_s = expected_wait_s(ahead, capacity.concurrency, p50_ms)
        return TierLoad(wait_s, (p50_ms or 0.0) / 1000, capacity.max_wait_s)
