"""Whether a local model's output is fit to send: a failure here escalates the question."""

from __future__ import annotations

from collections import Counter

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


def is_repetitive(text: str) -> bool:
    """True where some run of six words, or one line, comes back more often than an answer has reason to."""
    words = text.split()
    shingles = Counter(tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))
    if shingles and max(shingles.values()) > MAX_REPEATS:
        return True
    lines = Counter(line.strip() for line in text.splitlines() if len(line.strip()) > 3)
    return bool(lines) and max(lines.values()) > MAX_REPEATS
