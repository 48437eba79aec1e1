"""The strategies by name. A new one is a file beside `semantic` and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from mqrouter.routing.strategy import StrategyFactory

_STRATEGIES = {
    "semantic": "mqrouter.routing.semantic:Semantic",
}


def strategy_names() -> frozenset[str]:
    return frozenset(_STRATEGIES)


def strategy_factory(name: str) -> StrategyFactory:
    """Returns what builds the strategy `name`, imported now. Raises KeyError for an unknown one."""
    module, _, attribute = _STRATEGIES[name].partition(":")
    return cast(StrategyFactory, getattr(import_module(module), attribute))
