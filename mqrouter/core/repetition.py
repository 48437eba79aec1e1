"""How much of a text is the same thing over and over: an endless model does not stop by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

MAX_REPEATS = 4
SHINGLE_WORDS = 6
LEAST_CYCLE_CHARS = 40
"""A shorter tail may be a large number, a laugh or a rule of dashes."""
TAIL_CHARS = 4_000
"""A loop goes on to the end: no more of the text than this is searched for its period."""

# Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean: a character counts as a word, for few spaces stand between.
_DENSE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_DENSE}]|[^\s{_DENSE}]+")


def repeated_share(text: str) -> float:
    """Returns the part of the text, 0 to 1, that repeats: runs of six words or lines more than four times, or a cycle.

    A share, not a count: code and tables have lines that repeat, and are whole answers all the same. A cycle is one
    stretch of characters, spaces left out, that comes more than four times in a row up to the end.
    """
    words = _WORD.findall(text)
    shingles = [tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return max(_share(shingles), _share(lines), _cycle_share(text))


def _share(parts: Sequence[Hashable]) -> float:
    repeated = sum(count for count in Counter(parts).values() if count > MAX_REPEATS)
    return repeated / len(parts) if parts else 0.0


def _cycle_share(text: str) -> float:
    characters = "".join(text.split())
    length = _longest_cycle(characters[: -TAIL_CHARS - 1 : -1])
    return min(1.0, length / min(len(characters), TAIL_CHARS)) if length >= LEAST_CYCLE_CHARS else 0.0


def _longest_cycle(text: str) -> int:
    """Returns the length of the longest beginning that is one period more than four times over.

    By the borders of every beginning (Knuth, Morris, Pratt 1977): the least period is its length less its border.
    """
    borders = [0] * len(text)
    longest = 0
    for i in range(1, len(text)):
        border = borders[i - 1]
        while border and text[i] != text[border]:
            border = borders[border - 1]
        borders[i] = border + (text[i] == text[border])
        if i + 1 > MAX_REPEATS * (i + 1 - borders[i]):
            longest = i + 1
    return longest
