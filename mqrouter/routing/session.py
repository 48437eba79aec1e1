"""Sessions: what a question that means nothing alone inherits from the one before it."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONG_WORDS = 12
"""A question of more words than this never leans on what was said before."""
FEW_SIGNS = 3.0
"""In scripts without spaces so many signs, those of an alphabet or of syllables counted half, say no more than why."""

_WORD = re.compile(r"[\w']+")
_REFERRING = re.compile(
    r"\b(?:its?|that|this|those|these|they|them|their|ones?|same|again|another|others?|else|first|second|third|last"
    r"|latter|former|next|previous|more|less|both|n?either|instead|then)\b"
)
_CONTINUING = re.compile(
    r"[\W_]*(?:(?:and|or|but|so|what about|how about|und|oder|et|ou|y)\b"
    r"|(?:yes|yeah|yep|no|nope|ok|okay|sure|ja|nein|doch|oui|non|s[ií])\s*(?:$|[,.;:!?-]|please\b|thanks?\b))"
)
_BARE = frozenset({
    "why", "how", "when", "where", "what", "which", "who", "whose", "really", "exactly", "please", "you", "go",
    "on", "ahead", "continue", "explain", "details", "detail", "tell", "me", "say", "yes", "yeah", "yep", "no",
    "nope", "ok", "okay", "sure", "right", "and", "or", "but", "so", "is", "are", "was", "were", "does", "do",
    "did", "can", "could", "will", "would", "should", "i", "we", "a", "an", "the", "of", "for", "to", "not", "much",
    "many", "long", "often", "far", "soon", "meant", "mean", "maybe", "correct", "warum", "wieso", "wann", "wie",
    "weiter", "pourquoi", "quand", "comment", "por", "qué", "cuándo", "cómo",
})  # fmt: skip
_SIGNS = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_LETTERS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff]")
_MARKS = re.compile(r"[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd]")  # marks of Thai, Lao


@dataclass(frozen=True, slots=True)
class Session:
    """The latest request of a session that took a route."""

    request: str
    """Its id."""
    route: str
    tiers: tuple[str, ...]
    """In the order in which they were to be tried."""


def is_referential(text: str) -> bool:
    """True where a question names nothing of its own, or points back and is not long.

    Short is not enough: "irrigate zone 4" says all there is to say. The words are English, with what most often
    begins a follow-up in German, French and Spanish; in scripts without spaces the length in signs decides.
    """
    start = _MARKS.sub("", text[:400].casefold())
    signs = len(_SIGNS.findall(start)) + len(_LETTERS.findall(start)) / 2
    if signs:
        return signs + 2 * len(_WORD.findall(_LETTERS.sub(" ", _SIGNS.sub(" ", start)))) <= FEW_SIGNS
    words = _WORD.findall(start)
    if len(words) > LONG_WORDS:
        return False
    return _BARE.issuperset(words) or bool(_CONTINUING.match(start) or _REFERRING.search(start))
