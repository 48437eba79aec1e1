"""Texts cut to a size: at the end of a sentence where one is near, never inside what a reader sees as one character."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable

_ENDS = re.compile(
    r"(?:[.!?…‽]+|[؟۔।॥։።]+)[)\]}\"'”’»]*(?=\s|$)"  # noqa: RUF001
    r"|[。！？｡．]+[」』）】”’]*"  # noqa: RUF001
    r"|\n"
)
"""Ends of sentences; the full stops of Chinese and Japanese need no space behind them."""
_JOINERS = frozenset({0x200C, 0x200D, *range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400)})
"""Zero-width joiners, variation selectors, skin tones: they belong to the character before them."""


def cut_text(text: str, max_bytes: int | None) -> tuple[str, bool]:
    """Returns the text cut to `max_bytes` of UTF-8, and whether it was."""
    if max_bytes is None:
        return text, False
    return cut_to_fit(text, lambda part: len(part.encode()) <= max_bytes)


def cut_to_fit(text: str, fits: Callable[[str], bool]) -> tuple[str, bool]:
    """Returns the longest fitting beginning that ends well, and whether anything is missing.

    It ends with a sentence, or else a word, where one ends in its second half. What fits must fit when shortened.
    """
    if fits(text):
        return text, False
    length = bisect_left(range(len(text) + 1), True, key=lambda n: not fits(text[:n])) - 1
    length = _between_characters(text, max(0, length))
    return text[: _good_end(text, length)].rstrip(), True


def _between_characters(text: str, length: int) -> int:
    while 0 < length < len(text) and (_is_joined(text[length]) or ord(text[length - 1]) == 0x200D):
        length -= 1
    return length


def _is_joined(char: str) -> bool:
    return ord(char) in _JOINERS or unicodedata.category(char) in ("Mn", "Me", "Mc")


def _good_end(text: str, length: int) -> int:
    half = length // 2
    sentences = [found.end() for found in _ENDS.finditer(text, half) if found.end() <= length]
    if sentences:
        return sentences[-1]
    is_word_end = length == len(text) or text[length].isspace()
    word = max(text.rfind(space, half, length) for space in " \t\n")
    return length if is_word_end or word < 0 else word
