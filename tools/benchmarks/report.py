"""Figures, and how they are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass


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


def print_json(figures: Sequence[Figure]) -> None:
    rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")


def print_table(figures: Sequence[Figure]) -> None:
    head = ("bench", "what", "value", "reference", "ratio", "target")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _row(figure: Figure) -> tuple[str, ...]:
    reference = (
        "" if figure.reference is None else f"{_number(figure.reference)} {figure.unit} ({figure.reference_name})"
    )
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return (figure.bench, figure.what, f"{_number(figure.value)} {figure.unit}", reference, ratio, figure.target)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
