"""The charts of `--plot`, drawn by matplotlib without a display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mqrouter.bench.rows import Query, Total, Variant
from mqrouter.errors import MqrouterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REMEDY = "pip install 'mqrouter[plot]'"
SIZE_INCHES = (9.0, 5.5)
DPI = 120


class PlotError(MqrouterError):
    """Install the extra."""


def require_matplotlib() -> None:
    """Raises PlotError where there is none."""
    if find_spec("matplotlib") is None:
        raise PlotError(f"charts need matplotlib: {REMEDY}")


def plot(folder: Path, rows: Mapping[Variant, Sequence[Query]], totals: Mapping[Variant, Total]) -> list[Path]:
    """Returns the files written: the second chart only where questions had labels. Raises PlotError or OSError."""
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    written = [_latency(folder / "latency.png", rows)]
    labelled = {variant: total for variant, total in totals.items() if total.accuracy is not None}
    if labelled:
        written.append(_quality(folder, labelled))
    return written


def _latency(path: Path, rows: Mapping[Variant, Sequence[Query]]) -> Path:
    def draw(axes: Axes) -> None:
        for variant, queries in rows.items():
            latencies = np.sort([query.total_ms for query in queries])
            axes.step(latencies, np.arange(1, len(latencies) + 1) / len(latencies), where="post", label=variant.name)
        axes.set(xscale="log", xlabel="latency of a query, ms", ylabel="share of the queries", ylim=(0, 1.02))
        axes.set_title("Latency by configuration")

    return _write(path, draw)


def _quality(folder: Path, totals: Mapping[Variant, Total]) -> Path:
    """Against cost where every configuration has one, else against the median latency."""
    costs = [total.cost for total in totals.values() if total.cost is not None]
    has_costs = len(costs) == len(totals)
    values = costs if has_costs else [total.latency_p50_ms for total in totals.values()]
    what, label = ("Cost", "cost") if has_costs else ("Latency", "median latency of a query, ms")
    points = [
        (name.name, value, total.accuracy or 0.0) for (name, total), value in zip(totals.items(), values, strict=True)
    ]

    def draw(axes: Axes) -> None:
        for name, value, accuracy in points:
            axes.plot([value], [accuracy], "o", label=name)
        axes.set(xlabel=label, ylabel="accuracy", ylim=(0, 1.02), title=f"{what} against accuracy")

    return _write(folder / f"{what.lower()}_accuracy.png", draw)


def _write(path: Path, draw: Callable[[Axes], None]) -> Path:
    from matplotlib.figure import Figure  # an optional extra, and slow to import

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    figure.savefig(path, dpi=DPI)
    return path
