"""Delays between attempts: exponential, capped, with full jitter.

Full jitter draws uniformly from zero to the exponential ceiling; see Marc Brooker,
"Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    min_s: float
    max_s: float

    def ceiling_s(self, failures: int) -> float:
        """Returns the largest delay after `failures` failures in a row (from 1)."""
        doublings = min(max(failures - 1, 0), 60)  # 2**60 is past any cap and still a small float
        return min(self.max_s, self.min_s * 2.0**doublings)

    def delay_s(self, failures: int, chance: float) -> float:
        """Returns a delay; `chance` is uniform in [0, 1)."""
        return chance * self.ceiling_s(failures)
