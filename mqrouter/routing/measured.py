"""Which strategies can be measured on labelled questions, and with what of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mqrouter.routing.strategy import DEFAULTS, Options, Rule

SEES_MEANING = ("semantic", "knn", "learned")
"""The strategies that tell routes apart by what a question says, and need nothing but examples for it."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What a configuration says of its routes beyond their examples."""

    to: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each route's tiers."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    options: Options = DEFAULTS
    """Without a head: `learned` is measured by one learnt from the examples at hand."""

    @property
    def has_rules(self) -> bool:
        return any(rule.words or rule.patterns for rule in self.rules.values())


def why_not_measured(strategy: str, configured: Configured | None) -> str | None:
    """Returns why figures of a strategy would be of nothing, or None; without `configured` there are examples alone."""
    if strategy == "perf":
        return "it looks at the tiers and never at the question, so it tells no routes apart"
    if configured is None:
        return _NEEDS.get(strategy)
    if strategy == "heuristic" and not configured.has_rules:
        return "no route has words or patterns"
    return None


_NEEDS = {
    "heuristic": "it needs words and patterns, which only configured routes have: see `mqrouter eval questions`",
    "token": "it needs tiers, which only configured routes have: see `mqrouter eval questions`",
    "hybrid": "it needs tiers, which only configured routes have, and without them it is semantic",
    "cascade": "its routes are those of learned, or of semantic where nothing was trained: measure these",
}


def measured_by_default(configured: Configured | None) -> tuple[str, ...]:
    """Returns the strategies that see the text, and have what they need."""
    if configured is None:
        return SEES_MEANING
    rules = ("heuristic",) if configured.has_rules else ()
    cascade = ("cascade",) if configured.options.first == "learned" else ()
    return (*rules, *SEES_MEANING, "hybrid", *cascade)
