"""Plain columns: readable on any terminal, in a pipe and over a slow link."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_WIDTH = 48


def format_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    max_width: int | None = MAX_WIDTH,
    last_width: int | None = None,
) -> str:
    """Returns left-aligned columns, None shown as a dash, long cells shortened; `last_width` is the last one's own."""
    cells = [
        [_cell(value, max_width) for value in row[:-1]] + [_cell(row[-1], last_width or max_width)] for row in rows
    ]
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    lines = [headers, *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def format_figure(value: float | None, digits: int = 3) -> str:
    """Returns a dash for a figure that does not exist: None, or not finite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def format_age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def format_bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def _cell(value: object, max_width: int | None) -> str:
    text = "-" if value is None else printable(str(value))
    return text if max_width is None or len(text) <= max_width else text[: max_width - 1] + "…"


def printable(text: str) -> str:
    """Returns one line: control characters of a payload must not reach the operator's terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def printable_block(text: str, indent: str) -> str:
    """Returns the text on its own lines, those after the first indented: none of them passes for a line of ours."""
    return f"\n{indent}".join(printable(line.expandtabs()) for line in text.split("\n"))
