"""Heuristic: words and patterns that an operator wrote; no model, and a cost bounded whatever the question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mqrouter.routing.decision import Scores, Term
from mqrouter.routing.signals import Signals
from mqrouter.routing.strategy import DEFAULTS, Options, RouteExamples, Rule, rank

MAX_CHARS = 2_000
_STANDS_FOR = {"#": r"\d{1,20}+", " ": r"\s{1,4}+"}  # possessive: what they took they keep
_REPEATED = re.compile(r"([*# ])\1+")
_WORD = re.compile(r"\w+")


class Heuristic:
    """A route's score is the weight of each of its words and patterns found, together at most 1."""

    def __init__(self, routes: Mapping[str, RouteExamples], *, nearest: int, options: Options = DEFAULTS) -> None:
        self._names = tuple(routes)
        self._thresholds = tuple(route.threshold for route in routes.values())
        self._rules = tuple(_Matcher(route.rule) for route in routes.values())

    def score(self, signals: Signals) -> Scores:
        text = signals.text[:MAX_CHARS].casefold()
        words = sorted(set(_WORD.findall(text)))
        fired = [tuple(rule.fired(text, words)) for rule in self._rules]
        scores = np.array([min(1.0, sum(term.weight for term in terms)) for terms in fired])
        return Scores(rank(self._names, scores, self._thresholds, signals.asked_route, lambda i: fired[i]))


class _Matcher:
    def __init__(self, rule: Rule) -> None:
        written = [word.casefold() for word in rule.words]
        self._words = frozenset(word for word in written if not word.endswith("*"))
        self._beginnings = tuple(word[:-1] for word in written if word.endswith("*"))
        self._patterns = tuple((pattern, compile_pattern(pattern)) for pattern in rule.patterns)
        self._weight = rule.weight

    def fired(self, text: str, words: Sequence[str]) -> Iterator[Term]:
        """Yields a term for each word and pattern found in the folded text; `words` are its words, each once."""
        for word in words:
            if word in self._words or (self._beginnings and word.startswith(self._beginnings)):
                yield Term(f"word {word}", 1.0, self._weight)
        for pattern, compiled in self._patterns:
            if compiled.search(text):
                yield Term(f"pattern {pattern}", 1.0, self._weight)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Returns the expression of a pattern in which * is up to 40 characters without a space and # a whole number.

    After a * the nearest place that fits is taken and never tried again elsewhere: the cost of a search grows with
    the pattern and the question, and not with a power of either.
    """
    first, *others = _REPEATED.sub(r"\1", pattern.casefold()).strip("*").split("*")
    return re.compile(_literal(first) + "".join(rf"(?>\S{{0,40}}?{_literal(part)})" for part in others))


def _literal(part: str) -> str:
    return "".join(_STANDS_FOR.get(char, re.escape(char)) for char in part)
