"""Whether a local model's output is fit to send: a failure here escalates the question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

MAX_REPEATS = 4
SHINGLE_WORDS = 6


def why_unfit(text: str, finish_reason: str) -> str | None:
    """Returns why an answer must not be sent as whole (empty, repetitive, truncated), or None."""
    if not text.strip():
        return "empty"
    if is_repetitive(text):
        return "repetitive"
    if finish_reason == "length":
        return "truncated"
    return None


def mended(text: str) -> str:
    """Returns text that UTF-8 can carry: halves of a surrogate pair are joined, or replaced where one is alone.

    Servers that stream may cut an emoji in two, and JSON can spell the halves.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_repetitive(text: str) -> bool:
    """True where runs of six words, or lines, that come back more than four times make up half of the text.

    A share, not a count: code and tables have lines that repeat, and are whole answers all the same.
    """
    words = text.split()
    shingles = [tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _are_mostly_repeats(shingles) or _are_mostly_repeats(lines)


def _are_mostly_repeats(parts: Sequence[Hashable]) -> bool:
    repeated = sum(count for count in Counter(parts).values() if count > MAX_REPEATS)
    return repeated > 0 and 2 * repeated >= len(parts)
