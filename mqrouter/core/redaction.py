"""Found data is replaced by placeholders before a text leaves, and put back into the answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mqrouter.core.personal_data import Finding, Kind, find

MAX_VALUES = 50
"""Different ones in one question; with more it is a table of personal data, and is not for a stranger at all."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """Texts in which each found value is a placeholder, and what stands behind each."""

    texts: tuple[str, ...]
    values: Mapping[str, str]
    """By placeholder, such as <EMAIL_1>."""
    kinds: frozenset[Kind]


def redact(texts: Sequence[str], kinds: Collection[Kind], region: str | None = None) -> Redacted | None:
    """Returns the texts without what was found in them; None where it cannot all be replaced.

    Every occurrence of a found value goes, also one that is not recognised where it stands.
    """
    found = [find(text, kinds, region) for text in texts]
    placeholders = _placeholders(texts, found)
    if placeholders is None:
        return None
    left = tuple(_replaced(text, placeholders) for text in texts)
    values = {placeholder: value for value, placeholder in placeholders.items()}
    is_clean = all(_is_clean(text, find(text, kinds, region), values) for text in left)
    return Redacted(left, values, frozenset(one.kind for ones in found for one in ones)) if is_clean else None


def _placeholders(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]]) -> dict[str, str] | None:
    """Returns the placeholder of each different value, none of which stands in the texts; None for too many."""
    found: dict[str, str] = {}
    numbers: Counter[Kind] = Counter()
    for text, ones in zip(texts, findings, strict=True):
        for one in ones:
            value = text[one.start : one.end]
            if value in found:
                continue
            if len(found) == MAX_VALUES:
                return None
            found[value] = _next_placeholder(one.kind, numbers, texts)
    return found


def _next_placeholder(kind: Kind, numbers: Counter[Kind], texts: Sequence[str]) -> str:
    while True:
        numbers[kind] += 1
        placeholder = f"<{kind.upper()}_{numbers[kind]}>"
        if not any(placeholder in text for text in texts):
            return placeholder


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    if not replacements:
        return text
    longest_first = sorted(replacements, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern.sub(lambda match: replacements[match[0]], text)


def _is_clean(text: str, findings: Sequence[Finding], values: Mapping[str, str]) -> bool:
    """True where nothing is found but placeholders, and no value is left."""
    found = (text[one.start : one.end] for one in findings)
    return all(_replaced(one, dict.fromkeys(values, "")).strip() == "" for one in found) and not any(
        value in text for value in values.values()
    )


def _is_begun(placeholder: str, text: str) -> bool:
    return len(text) < len(placeholder) and placeholder.startswith(text)


class Restorer:
    """Puts the values back into a text that comes in pieces, which may cut a placeholder anywhere."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._longest = max(map(len, values), default=0)
        self._held = ""

    def feed(self, piece: str) -> str:
        """Returns as much of the text so far as can be told already."""
        text = self._held + piece
        start = text.rfind("<", max(0, len(text) - self._longest + 1))
        is_open = start >= 0 and any(_is_begun(placeholder, text[start:]) for placeholder in self._values)
        self._held = text[start:] if is_open else ""
        return _replaced(text[:start] if is_open else text, self._values)

    def close(self) -> str:
        """Returns what was held back: the text has ended."""
        held, self._held = self._held, ""
        return held
