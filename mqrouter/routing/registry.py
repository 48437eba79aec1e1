"""The strategies by name. A new one is a file beside `semantic` and a line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import cast

from mqrouter.routing.strategy import Options, RouteExamples, Strategy, StrategyFactory

_STRATEGIES = {
    "cascade": "mqrouter.routing.cascade:Cascade",
    "heuristic": "mqrouter.routing.heuristic:Heuristic",
    "hybrid": "mqrouter.routing.hybrid:Hybrid",
    "knn": "mqrouter.routing.knn:Knn",
    "learned": "mqrouter.routing.learned:Learned",
    "perf": "mqrouter.routing.perf:Perf",
    "semantic": "mqrouter.routing.semantic:Semantic",
    "token": "mqrouter.routing.token:Token",
}


def strategy_names() -> frozenset[str]:
    return frozenset(_STRATEGIES)


def strategy_factory(name: str) -> StrategyFactory:
    """Returns what builds the strategy `name`, imported now. Raises KeyError for an unknown one."""
    module, _, attribute = _STRATEGIES[name].partition(":")
    return cast(StrategyFactory, getattr(import_module(module), attribute))


class Strategies(Mapping[str, Strategy]):
    """Every strategy over the same routes, each built when it is first asked for: few gateways use more than one.

    Raises ValueError for one that lacks what it needs.
    """

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options) -> None:
        self._routes, self._nearest, self._options = routes, nearest, options
        self._built: dict[str, Strategy] = {}

    def build(self, name: str) -> None:
        if name not in self._built:
            self._built[name] = strategy_factory(name)(self._routes, nearest=self._nearest, options=self._options)

    def __getitem__(self, name: str) -> Strategy:
        self.build(name)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_STRATEGIES))

    def __len__(self) -> int:
        return len(_STRATEGIES)
