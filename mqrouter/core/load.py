"""How long a request would wait for a tier, and which tiers it had better not wait for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a tier takes."""

    concurrency: int
    max_wait_s: float | None


@dataclass(frozen=True, slots=True)
class TierLoad:
    """How busy a tier is, in seconds."""

    wait_s: float
    """Expected until a request that comes now gets its turn."""
    answer_s: float
    """Expected from its turn to its answer."""
    max_wait_s: float | None
    """None: a request may wait as long as it lives."""

    @property
    def is_overloaded(self) -> bool:
        return self.max_wait_s is not None and self.wait_s > self.max_wait_s


@dataclass(frozen=True, slots=True)
class TooBusy:
    """A tier that was put behind the others."""

    tier: str
    wait_s: float
    limit_s: float
    """Of its own, or what the request's time to live leaves."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def expected_wait_s(ahead: int, concurrency: int, latency_ms: float | None) -> float:
    """Returns the wait behind `ahead` requests, those under way included; 0 where nobody knows how long one takes."""
    if latency_ms is None or ahead < concurrency:
        return 0.0
    return (ahead - concurrency + 1) / concurrency * latency_ms / 1000


def put_busy_last(
    tiers: Sequence[str], loads: Mapping[str, TierLoad], up: Collection[str], left_s: float
) -> tuple[tuple[str, ...], tuple[TooBusy, ...]]:
    """Returns the tiers with the busy ones behind the last that is up and has time, and those that were moved.

    Busy is where the wait is above the tier's own limit, or the answer would come after the `left_s` the request lives.
    """
    busy = [found for name in tiers if (found := _too_busy(name, loads.get(name), left_s)) is not None]
    names = {found.tier for found in busy}
    if not any(name in up and name not in names for name in tiers):
        return tuple(tiers), ()
    quick = tuple(name for name in tiers if name not in names)
    return quick + tuple(name for name in tiers if name in names), tuple(busy)


def _too_busy(name: str, load: TierLoad | None, left_s: float) -> TooBusy | None:
    if load is None or load.max_wait_s is None:
        return None
    limit_s = min(load.max_wait_s, left_s - load.answer_s)
    return TooBusy(name, round(load.wait_s, 1), round(max(0.0, limit_s), 1)) if load.wait_s > limit_s else None
