"""Sessions: what a question that means nothing alone inherits from the one before it."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORT_WORDS, LONG_WORDS = 3, 12
"""A question of at most so many words leans on what was said before; one of more than so many never does."""

_WORD = re.compile(r"[\w']+")
_REFERRING = re.compile(
    r"\b(?:its?|that|this|those|these|they|them|their|ones?|same|again|another|others?|else|first|second|third|last"
    r"|latter|former|next|previous|more|less|both|n?either|instead|there|then|yes|yeah|no|ok|okay|sure|continue)\b"
)


@dataclass(frozen=True, slots=True)
class Session:
    """The latest request of a session that took a route."""

    request: str
    """Its id."""
    route: str
    tiers: tuple[str, ...]
    """In the order in which they were to be tried."""


def is_referential(text: str) -> bool:
    """True where a question is too short to mean something alone, or points back and is not long."""
    start = text[:400].casefold()
    words = len(_WORD.findall(start))
    return words <= SHORT_WORDS or (words <= LONG_WORDS and _REFERRING.search(start) is not None)
