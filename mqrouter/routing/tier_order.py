"""Which of a route's tiers is asked first: the weak one where the strong one is not expected to do better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mqrouter.routing.gain import GainRegressor, forms_of
from mqrouter.routing.signals import Signals

ORDERS_BY_GAIN = frozenset({"learned", "hybrid"})
"""Strategies whose tiers are put in order by the expected gain."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What was expected of the stronger tier, and what followed from it."""

    expected: float
    """How much more often it is right: in [-1, 1] but for what a straight line overshoots."""
    least: float
    is_weak_first: bool
    is_sessions: bool = False
    """True where the session's first tier stays, the expectation being too near to `least` for a change."""


@dataclass(frozen=True, slots=True)
class TierOrder:
    regressor: GainRegressor
    least: float
    """Expected gain below which the weak tiers go first."""
    tiers: tuple[str, ...]
    """Every tier, the weakest first."""
    switch_margin: float = 0.0
    """How far from `least` the gain must be before a session's first tier changes."""

    def expected(self, signals: Signals) -> float:
        found = self.regressor.predict(signals.embedding.vector[None, :], forms_of([signals.text]))
        return float(found[0])

    def order(
        self, to: tuple[str, ...], signals: Signals, *, session: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], Gain]:
        """Returns the tiers with the weak ones first, or as configured; `session` are those of its latest request."""
        expected = self.expected(signals)
        weak_first = tuple(sorted(to, key=self.tiers.index))
        ordered = weak_first if expected < self.least else to
        other = to if ordered is weak_first else weak_first
        is_sessions = (
            abs(expected - self.least) < self.switch_margin
            and bool(session)
            and session[0] != ordered[0]
            and session[0] == other[0]
        )
        chosen = other if is_sessions else ordered
        return chosen, Gain(expected, self.least, chosen is weak_first, is_sessions)
