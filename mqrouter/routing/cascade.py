"""Cascade: the local tier tries first, and its answer goes up where it is not confident enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.registry import strategy_factory
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples


class Cascade:
    """Routes are those of the strategy `options.first`; its own are the order of tiers and the confidence asked for."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        if options.first == "cascade":
            raise ValueError("a cascade's routes come from another strategy than itself")
        self._first = strategy_factory(options.first)(routes, nearest=nearest, options=options)
        self._least = options.min_answer_confidence

    def score(self, signals: Signals) -> Scores:
        scores = self._first.score(signals)
        term = Term("least_answer_confidence", self._least)
        return replace(scores, ranked=tuple(replace(entry, terms=(*entry.terms, term)) for entry in scores.ranked))

    def order(self, tiers: Sequence[str], local: Collection[str]) -> tuple[str, ...]:
        """Returns a route's tiers with the local ones in front, each group in its own order."""
        return (*(tier for tier in tiers if tier in local), *(tier for tier in tiers if tier not in local))

    @property
    def least_confidence(self) -> float:
        """Returns what a local answer must reach to be kept; 0 keeps all."""
        return self._least
