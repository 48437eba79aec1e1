"""How figures went of late: a fixed number of samples, the oldest forgotten."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TypeVar

N = TypeVar("N", int, float)


class Trend:
    """Four bytes a sample and series; what is missing stays missing."""

    def __init__(self, names: Sequence[str], kept: int) -> None:
        self._kept = kept
        self._at_ms = array("q")
        self._values = {name: array("f") for name in names}
        self._next = 0

    def add(self, at_ms: int, values: Mapping[str, float | None]) -> None:
        self._put(self._at_ms, at_ms)
        for name, samples in self._values.items():
            value = values.get(name)
            self._put(samples, math.nan if value is None else value)
        self._next = (self._next + 1) % self._kept

    def _put(self, samples: array[N], value: N) -> None:
        if len(samples) < self._kept:
            samples.append(value)
        else:
            samples[self._next] = value

    @property
    def at_ms(self) -> list[int]:
        """The times of the samples, oldest first."""
        return self._in_order(self._at_ms)

    def series(self, name: str) -> list[float | None]:
        return [None if math.isnan(value) else value for value in self._in_order(self._values[name])]

    def highest_since(self, at_ms: int) -> dict[str, float | None]:
        """Returns the highest of each series in the samples after that time."""
        fresh = [index for index, sampled_ms in enumerate(self._at_ms) if sampled_ms > at_ms]
        found: dict[str, float | None] = {}
        for name, samples in self._values.items():
            known = [samples[index] for index in fresh if not math.isnan(samples[index])]
            found[name] = max(known, default=None)
        return found

    def _in_order(self, samples: array[N]) -> list[N]:
        start = self._next if len(samples) == self._kept else 0
        values = samples.tolist()
        return values[start:] + values[:start]
