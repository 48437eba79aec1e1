"""Figures to paths: nothing outside of the drawing, gaps stay gaps."""

from __future__ import annotations

import re

import pytest

from mqrouter.edge.web.pages.charts import HEIGHT, WIDTH, ceiling, distribution, line_chart


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (7, 10), (20, 20), (499, 500)])
def test_top_is_a_round_number(value: float, top: float) -> None:
    assert ceiling(value) == pytest.approx(top)


@pytest.mark.parametrize("samples", [1, 2, 119, 120, 121, 720])
def test_line_stays_inside_and_breaks_where_nothing_is_known(samples: int) -> None:
    values = [None if samples > 2 and 40 <= n < 60 else float(n % 37) for n in range(samples)]
    chart = line_chart("x", "X", {"at_ms": list(range(0, 15_000 * samples, 15_000)), "v": values}, {"v": "v"}, str)
    (series,) = chart.series
    points = [(int(x), int(y)) for x, y in re.findall(r"[ML](\d+) (\d+)", series.path)]
    assert 0 < len(points) <= 120
    assert all(0 <= x <= WIDTH and 0 < y < HEIGHT for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert series.path.count("M") == (2 if samples > 100 else 1)
    assert 0 < len(chart.rows) <= 12 and chart.rows[0][0] == 15_000 * (samples - 1)


def test_nothing_known_is_an_empty_chart() -> None:
    assert line_chart("x", "X", {"at_ms": [], "v": []}, {"v": "v"}, str).is_empty
    assert line_chart("x", "X", {"at_ms": [1, 2], "v": [None, None]}, {"v": "v"}, str).is_empty


def test_distribution_tells_the_bounds_that_shares_reached() -> None:
    found = distribution("hub", [(0.05, 5), (1.0, 3), (5.0, 1), (float("inf"), 1)])
    assert (found.answers, found.p50, found.p90, found.last) == (10, "50 ms", "5.0 s", "longer")
    assert found.path.count("M") == 4
