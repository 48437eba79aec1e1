"""One tier's circuit breaker: pure, its clock and its chance come in as arguments.

Closed lets everything through. Open lets nothing through until a health probe succeeds;
then it is half open, and exactly one request decides whether it closes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mqrouter.core.backoff import Backoff


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    max_failures: int
    probes: Backoff
    state: BreakerState = BreakerState.CLOSED
    reason: str = ""
    failures: int = 0
    failed_probes: int = 0
    probe_at_s: float = 0.0
    held_until_s: float = 0.0

    def is_available(self, now_s: float) -> bool:
        """True where a request may be sent now (half open: one at a time, which the lane sees to)."""
        return self.state is not BreakerState.OPEN and now_s >= self.held_until_s

    def held_s(self, now_s: float) -> float:
        """Returns for how long the tier still asks to be left alone."""
        return max(0.0, self.held_until_s - now_s)

    def probe_in_s(self, now_s: float) -> float | None:
        """Returns when it is looked at again; None where nobody has to."""
        return max(0.0, self.probe_at_s - now_s) if self.state is BreakerState.OPEN else None

    def is_probe_due(self, now_s: float) -> bool:
        return self.state is BreakerState.OPEN and now_s >= self.probe_at_s

    def succeed(self) -> None:
        self.state, self.reason, self.failures, self.failed_probes = BreakerState.CLOSED, "", 0, 0

    def fail(self, reason: str, now_s: float, chance: float) -> None:
        """Counts a failure; the last allowed one, or the one request of half open, opens the breaker."""
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN or self.failures >= self.max_failures:
            self.trip(reason, now_s, chance)

    def trip(self, reason: str, now_s: float, chance: float) -> None:
        """Opens at once: nobody is there, so counting failures would only cost time."""
        if self.state is BreakerState.OPEN:
            return  # requests that were in flight together fail together: that is one outage, one pause
        self.failed_probes += 1
        self.state, self.reason = BreakerState.OPEN, reason
        self.probe_at_s = now_s + self._pause_s(chance)

    def probe_failed(self, now_s: float, chance: float) -> None:
        self.failed_probes += 1
        self.probe_at_s = now_s + self._pause_s(chance)

    def hurry(self, now_s: float) -> None:
        """The next probe is due: somebody has reason to think that the tier is back."""
        self.probe_at_s = min(self.probe_at_s, now_s)

    def probe_succeeded(self) -> None:
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def hold(self, until_s: float) -> None:
        """Sends nothing before `until_s`: the tier asked for it (Retry-After)."""
        self.held_until_s = max(self.held_until_s, until_s)

    def _pause_s(self, chance: float) -> float:
        # At least half of the ceiling: a probe drawn at zero would be a retry, not a pause.
        return (0.5 + 0.5 * chance) * self.probes.ceiling_s(self.failed_probes)
