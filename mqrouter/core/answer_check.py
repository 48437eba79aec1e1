"""Whether a model's output is fit to send: a failure here escalates the question."""

from __future__ import annotations

from mqrouter.core.repetition import repeated_share

MAX_REPEATED_SHARE = 0.5


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
    """True where what repeats makes up half of the text."""
    return repeated_share(text) >= MAX_REPEATED_SHARE
