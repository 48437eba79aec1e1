"""Figures, and how they are shown."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

HEAD = ("bench", "what", "value", "reference", "ratio", "target")
WIDTHS = (9, 60, 13, 42, 5, 6)
"""Characters of each column at least: most rows fit, so that those of the next bench stand below them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value beside its reference from the same run."""

    bench: str
    what: str
    value: float
    unit: str
    reference: float | None = None
    reference_name: str = ""
    target: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.reference else self.value / self.reference


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Table:
    """Rows as they come, below one head: no column ever gets narrower than it was."""

    def __init__(self) -> None:
        self._widths = list(WIDTHS)

    def __enter__(self) -> Table:
        self._print([HEAD])
        return self

    def add(self, figures: Sequence[Figure]) -> None:
        self._print([_row(figure) for figure in figures])

    def __exit__(self, *_: object) -> None:
        """What stands there, stands there."""

    def _print(self, rows: Sequence[tuple[str, ...]]) -> None:
        self._widths = [max(width, *(len(row[i]) for row in rows)) for i, width in enumerate(self._widths)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            sys.stdout.write(line.rstrip() + "\n")
        sys.stdout.flush()


class JsonList:
    """One list, an object for each figure as it comes: whole also where a bench fails."""

    def __init__(self) -> None:
        self._separator = "\n"

    def __enter__(self) -> JsonList:
        sys.stdout.write("[")
        return self

    def add(self, figures: Sequence[Figure]) -> None:
        for figure in figures:
            row = json.dumps(asdict(figure) | {"ratio": figure.ratio}, indent=2)
            sys.stdout.write(self._separator + textwrap.indent(row, "  "))
            self._separator = ",\n"
        sys.stdout.flush()

    def __exit__(self, *_: object) -> None:
        sys.stdout.write("\n]\n")
        sys.stdout.flush()


def _row(figure: Figure) -> tuple[str, ...]:
    reference = (
        "" if figure.reference is None else f"{_number(figure.reference)} {figure.unit} ({figure.reference_name})"
    )
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return (figure.bench, figure.what, f"{_number(figure.value)} {figure.unit}", reference, ratio, figure.target)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
