"""A token bucket per device, for a bounded number of devices."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class DeviceRates:
    per_minute: int
    max_devices: int = 10_000
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def is_allowed(self, device: str, now_s: float) -> bool:
        """Takes one token from the device's bucket; False where it is empty."""
        tokens = self._left(device, now_s)
        self._buckets.pop(device, None)
        is_allowed = tokens >= 1.0
        self._buckets[device] = (tokens - 1.0 if is_allowed else tokens, now_s)
        if len(self._buckets) > self.max_devices:
            self._buckets.popitem(last=False)  # the one silent for longest: its bucket is the fullest
        return is_allowed

    def is_spent(self, device: str, now_s: float) -> bool:
        """True where the next one would be refused; takes nothing."""
        return self._left(device, now_s) < 1.0

    def _left(self, device: str, now_s: float) -> float:
        tokens, since = self._buckets.get(device, (float(self.per_minute), now_s))
        return min(float(self.per_minute), tokens + (now_s - since) * self.per_minute / 60.0)
