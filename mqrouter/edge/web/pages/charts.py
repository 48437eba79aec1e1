"""Figures over time as paths of an SVG, with the table that stands behind each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mqrouter.edge.web.pages import words

WIDTH, HEIGHT = 600, 120
POINTS = 120
ROWS = 12
BAR_WIDTH, BAR_HEIGHT = 280, 60

Shown = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    path: str
    latest: str


@dataclass(frozen=True, slots=True)
class Chart:
    id: str
    title: str
    top: str
    """The highest that fits in, at the upper edge."""
    since: int
    """Milliseconds of the wall clock."""
    series: tuple[Series, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def is_empty(self) -> bool:
        return not self.rows


def line_chart(id: str, title: str, data: Mapping[str, Any], names: Mapping[str, str], shown: Shown) -> Chart:
    """`names` of series in `data` with what they are called; `data` has the times as `at_ms`."""
    at_ms: list[int] = data["at_ms"]
    values = {name: data[name] for name in names}
    known = [value for samples in values.values() for value in samples if value is not None]
    top = ceiling(max(known, default=0.0))
    first, last = (at_ms[0], at_ms[-1]) if at_ms else (0, 0)
    series = tuple(
        Series(
            title,
            _path(_thinned(at_ms, values[name]), first, last, top),
            _latest(values[name], shown),
        )
        for name, title in names.items()
    )
    return Chart(id, title, shown(top), first, series, _rows(at_ms, list(values.values()), shown) if known else ())


def ceiling(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, 20, 50 and so on."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value * 0.999_999)


def _latest(samples: Sequence[float | None], shown: Shown) -> str:
    value = samples[-1] if samples else None
    return words.NOTHING if value is None else shown(value)


def _thinned(at_ms: Sequence[int], samples: Sequence[float | None]) -> list[tuple[int, float | None]]:
    """Returns at most `POINTS` of them, each the highest of its stretch."""
    step = max(1, math.ceil(len(samples) / POINTS))
    found = []
    for start in range(0, len(samples), step):
        known = [value for value in samples[start : start + step] if value is not None]
        found.append((at_ms[min(start + step, len(samples)) - 1], max(known, default=None)))
    return found


def _path(points: Sequence[tuple[int, float | None]], first: int, last: int, top: float) -> str:
    width_ms = max(1, last - first)
    parts: list[str] = []
    is_drawing = False
    for at_ms, value in points:
        if value is not None:
            x = round(WIDTH * (at_ms - first) / width_ms) if len(points) > 1 else WIDTH
            y = round(HEIGHT - 1 - (HEIGHT - 2) * min(value, top) / top)
            parts.append(f"{'L' if is_drawing else 'M'}{x} {y}")
        is_drawing = value is not None
    return "".join(parts) if len(parts) != 1 else f"{parts[0]}h-6"


def _rows(
    at_ms: Sequence[int], values: Sequence[Sequence[float | None]], shown: Shown
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Returns evenly spread samples, newest first."""
    step = max(1, len(at_ms) // ROWS)
    picked = list(range(len(at_ms) - 1, -1, -step))[:ROWS]
    return tuple(
        (at_ms[i], tuple(words.NOTHING if samples[i] is None else shown(samples[i]) for samples in values))  # type: ignore[arg-type]
        for i in picked
    )


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many answers of a tier fell between one bound and the next."""

    name: str
    answers: int
    p50: str
    p90: str
    path: str
    first: str
    last: str


def distribution(name: str, counts: Sequence[tuple[float, int]]) -> Distribution:
    total = sum(count for _, count in counts)
    highest = max((count for _, count in counts), default=0) or 1
    width = BAR_WIDTH / max(1, len(counts))
    tall = [max(1, round(BAR_HEIGHT * count / highest)) for _, count in counts]
    bars = [
        f"M{round(width * i)} {BAR_HEIGHT}v-{tall[i]}h{round(width) - 2}V{BAR_HEIGHT}z"
        for i, (_, count) in enumerate(counts)
        if count
    ]
    return Distribution(
        name,
        total,
        _bound_reached(counts, 0.5 * total),
        _bound_reached(counts, 0.9 * total),
        "".join(bars),
        bound(counts[0][0]) if counts else "",
        bound(counts[-1][0]) if counts else "",
    )


def _bound_reached(counts: Sequence[tuple[float, int]], wanted: float) -> str:
    so_far = 0
    for upper, count in counts:
        so_far += count
        if so_far >= wanted:
            return bound(upper)
    return words.NOTHING


def bound(seconds: float) -> str:
    if math.isinf(seconds):
        return "longer"
    return f"{1000 * seconds:g} ms" if seconds < 1 else words.age(seconds)
