"""Places in a text, found by patterns at a bounded cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

MAX_CANDIDATES = 200
"""Of one kind that are looked at closely; what follows the last of them in the text is taken for one more finding."""

Span = tuple[int, int]


def bounded(candidates: Iterator[Span], text: str, is_found: Callable[[Span], Span | None]) -> Iterator[Span]:
    for number, span in enumerate(candidates):
        if number == MAX_CANDIDATES:
            yield span[0], len(text)
            return
        if (checked := is_found(span)) is not None:
            yield checked


def spans(pattern: re.Pattern[str], text: str, group: int | str = 0) -> Iterator[Span]:
    return (match.span(group) for match in pattern.finditer(text))
