"""What was answered a moment ago: who asks the same again gets the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

FRESH_S, MAX_FRESH_S = 1.0, 2.0
PER_S_TAKEN = 10.0
"""What took long is fresh for longer: however many ask, it is looked up for a tenth of the time at most."""
MAX_BYTES = 1 << 20
MAX_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look began."""

    at_s: float
    generation: int


class Recent:
    """Answers in JSON, each for a moment: many who watch one page cost the questions no more than one does.

    Nothing is kept across a change that somebody made here: they see at once what they have done.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._kept: dict[Hashable, tuple[float, bytes]] = {}
        self._bytes = 0
        self._generation = 0

    def now(self) -> Moment:
        return Moment(self._monotonic_s(), self._generation)

    def get(self, asked: Hashable) -> bytes | None:
        """Returns the answer to the same question, as long as it is fresh."""
        until_s, body = self._kept.get(asked, (0.0, None))
        return body if self._monotonic_s() < until_s else None

    def keep(self, asked: Hashable, body: bytes, begun: Moment) -> None:
        """Keeps an answer that was looked up from `begun` on; not if something was changed meanwhile."""
        if begun.generation != self._generation:
            return
        if self._bytes + len(body) > MAX_BYTES or len(self._kept) >= MAX_ENTRIES:
            self._clear()
        self._bytes += len(body) - len(self._kept.get(asked, (0.0, b""))[1])
        fresh_s = min(MAX_FRESH_S, max(FRESH_S, PER_S_TAKEN * (self._monotonic_s() - begun.at_s)))
        self._kept[asked] = begun.at_s + fresh_s, body

    def forget(self) -> None:
        """Something was changed."""
        self._generation += 1
        self._clear()

    def _clear(self) -> None:
        self._kept.clear()
        self._bytes = 0
