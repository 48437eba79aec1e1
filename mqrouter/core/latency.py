"""How long a tier's answers take of late: the median, the latest counting most."""

from __future__ import annotations

from collections import deque

KEPT = 32
FADE = 0.9  # of an answer's weight with each later one: half of it is gone after seven


class RecentLatency:
    """An exponentially weighted median: one slow answer does not move it, eight of them do."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=KEPT)
        self.p50_ms: float | None = None
        """None until something was added."""

    def add(self, latency_ms: float) -> None:
        self._latest.appendleft(latency_ms)
        weighted = sorted((value, FADE**age) for age, value in enumerate(self._latest))
        half = sum(weight for _, weight in weighted) / 2
        for value, weight in weighted:
            half -= weight
            if half <= 0:
                self.p50_ms = value
                return
