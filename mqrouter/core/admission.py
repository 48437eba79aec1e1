"""Fit in the queue: its limits, who holds how much of it, and whose turn it is. Rules and counting; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import NamedTuple

from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.states import ACTIVE, State
from mqrouter.errors import ErrorCode


class WhenFull(StrEnum):
    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    DROP_LOWEST = "drop_lowest"


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of what is accepted and not yet answered; `share_per_device` is a share of both other limits."""

    max_requests: int
    max_bytes: int
    when_full: WhenFull
    share_per_device: float


class Fit(Enum):
    ENOUGH = auto()
    DEVICE_FULL = auto()
    """The device holds its share: nobody else makes room for it."""
    QUEUE_FULL = auto()


@dataclass(slots=True)
class Held:
    requests: int = 0
    bytes: int = 0

    def add(self, requests: int, size: int) -> None:
        self.requests += requests
        self.bytes += size


class Ended(NamedTuple):
    """How a request ended: `outcome` is "answered" or the code of the error it was answered with."""

    outcome: str
    route: str | None
    tier: str | None

    @classmethod
    def of(cls, error: ErrorCode | None, route: str | None = None, tier: str | None = None) -> Ended:
        return cls("answered" if error is None else str(error), route, tier)


def fit_of(size: int, held: Held, by_device: Held, limits: QueueLimits) -> Fit:
    """Returns whether a request of `size` bytes fits, given what is held in all and by its device."""
    share = limits.share_per_device
    if share < 1 and (
        by_device.requests >= max(1, int(share * limits.max_requests))
        or by_device.bytes + size > share * limits.max_bytes
    ):
        return Fit.DEVICE_FULL
    if held.requests >= limits.max_requests or held.bytes + size > limits.max_bytes:
        return Fit.QUEUE_FULL
    return Fit.ENOUGH


@dataclass(slots=True)
class Holdings:
    """What is in the queue: by state, in all and by device; true after every commit.

    Turns make service fair between devices of one priority: start-time fair queueing (Goyal, Vin, Cheng 1996) with
    every question of equal weight. A device's next question gets the turn after its last one, but never one that is
    over already; the lowest turn is served first.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes by state, of what is in the queue: they add up to those in all."""
    total: Held = field(default_factory=Held)
    devices: dict[str, Held] = field(default_factory=dict)
    answers: int = 0
    """Written, and neither acknowledged by the broker nor given up; provisional ones too."""
    dropped: int = 0
    ended: Counter[Ended] = field(default_factory=Counter)
    """Since the start."""
    next_turns: dict[tuple[str, int], int] = field(default_factory=dict)
    """By device and priority, of devices that hold something."""
    unread: set[str] = field(default_factory=set)
    """Devices that hold requests of an earlier life: only the database knows their turns."""
    served: dict[int, int] = field(default_factory=dict)
    """The turn served last, by priority."""

    def of(self, device: str) -> Held:
        return self.devices.get(device) or Held()

    def apply(self, moves: Moves) -> None:
        self.counts.update(moves.counts)
        self.sizes.update(moves.sizes)
        self.answers += moves.answers
        self.dropped += moves.dropped
        self.ended.update(moves.ended)
        for device, held in moves.devices.items():
            self._change(device, held)
        for key, turn in moves.next_turns.items():
            if key[0] in self.devices:
                self.next_turns[key] = turn
        self.served.update(moves.served)

    def _change(self, device: str, change: Held) -> None:
        self.total.add(change.requests, change.bytes)
        held = self.devices.setdefault(device, Held())
        held.add(change.requests, change.bytes)
        if held.requests == 0:
            del self.devices[device]
            self.unread.discard(device)
            for priority in range(MAX_PRIORITY + 1):
                self.next_turns.pop((device, priority), None)


class Moves:
    """What one transaction does to the holdings: they follow once it is on disk."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self.clear()

    def clear(self) -> None:
        """The transaction begins anew."""
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.total = Held()
        self.devices: dict[str, Held] = {}
        self.next_turns: dict[tuple[str, int], int] = {}
        self.served: dict[int, int] = {}
        self.answers = 0
        self.dropped = 0
        self.ended: Counter[Ended] = Counter()

    def enter(self, device: str, priority: int, size: int, turn: int) -> None:
        self._hold(State.RECEIVED, device, 1, size)
        self.next_turns[device, priority] = turn + 1

    def move(self, old: State, new: State, size: int) -> None:
        """Between two active states."""
        assert {old, new} <= ACTIVE
        self.counts[old] -= 1
        self.counts[new] += 1
        self.sizes[old] -= size
        self.sizes[new] += size

    def leave(self, state: State, device: str, size: int, ended: Ended) -> None:
        if state is State.DROPPED:  # it has left the queue already
            self.counts[state] -= 1
        else:
            self._hold(state, device, -1, -size)
        self.ended[ended] += 1

    def drop(self, state: State, device: str, size: int) -> None:
        """It makes room for others, and may come back."""
        self._hold(state, device, -1, -size)
        self.counts[State.DROPPED] += 1

    def bring_back(self, state: State, device: str, priority: int, size: int, turn: int, next_turn: int) -> None:
        """It has its old turn again; `next_turn` is the one its device would get now."""
        self.counts[State.DROPPED] -= 1
        self._hold(state, device, 1, size)
        self.next_turns[device, priority] = max(turn + 1, next_turn)

    def serve(self, priority: int, turn: int) -> None:
        self.served[priority] = turn

    def held(self) -> Held:
        return _sum(self._holdings.total, self.total)

    def held_by(self, device: str) -> Held:
        return _sum(self._holdings.of(device), self.devices.get(device) or Held())

    def next_turn(self, device: str, priority: int, last_stored: Callable[[], int]) -> int:
        """Returns the device's next turn; `last_stored` finds the last one among what it holds, -1 for none."""
        key = device, priority
        turn = self.next_turns.get(key, self._holdings.next_turns.get(key))
        if turn is None:
            turn = last_stored() + 1 if device in self._holdings.unread else 0
        return max(turn, self._holdings.served.get(priority, 0))

    def _hold(self, state: State, device: str, requests: int, size: int) -> None:
        assert state in ACTIVE
        self.counts[state] += requests
        self.sizes[state] += size
        self.total.add(requests, size)
        self.devices.setdefault(device, Held()).add(requests, size)


def _sum(one: Held, other: Held) -> Held:
    return Held(one.requests + other.requests, one.bytes + other.bytes)
