"""Where lines and ticks go."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    STYLES,
    TOP,
    WIDTH,
    LineChart,
    Point,
    Rule,
    Series,
    outline,
)
from recsys.report.document import Cell, Column, Interval, Table


def chart(*points: tuple[float, float], **changes: Any) -> LineChart:
    series = Series(name="a", points=tuple(Point(x=x, y=y) for x, y in points))
    whole: dict[str, Any] = {"id": "c", "title": "t", "description": "d", "x_label": "x", "y_label": "y"}
    return LineChart(**({**whole, "series": (series,)} | changes))


def test_the_diagonal_runs_from_corner_to_corner() -> None:
    found = chart((0.2, 0.1), (0.8, 0.9), diagonal=True)
    assert (found.at_x(0), found.at_y(0)) == (LEFT, HEIGHT - BOTTOM)
    assert (found.at_x(1), found.at_y(1)) == (WIDTH - RIGHT, TOP)
    assert [tick.text for tick in found.y_ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_a_logarithm_puts_equal_factors_at_equal_distances() -> None:
    found = chart((1e3, 0.1), (1e4, 0.2), (1e5, 0.3), log_x=True, bytes_x=True)
    left, middle, right = (found.at_x(x) for x in (1e3, 1e4, 1e5))
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert [tick.text for tick in found.x_ticks] == ["1 kB", "2 kB", "5 kB", "10 kB", "20 kB", "50 kB", "100 kB"]


def test_epochs_have_whole_ticks_and_a_single_point_a_place() -> None:
    assert [tick.text for tick in chart((1, 0.5), (2, 0.6), (3, 0.7)).x_ticks] == ["1", "2", "3"]
    alone = chart((1, 0.5))
    assert LEFT < alone.at_x(1) < WIDTH - RIGHT
    assert TOP < alone.at_y(0.5) < HEIGHT - BOTTOM
    assert alone.y_ticks


def test_everything_is_inside_even_intervals_and_rules() -> None:
    far = Series(name="b", points=(Point(x=1, y=0.5, low=-3.0, high=4.0),))
    found = chart(series=(far,), rules=(Rule(name="r", y=9.0),))
    assert all(TOP <= found.at_y(y) <= HEIGHT - BOTTOM for y in (-3.0, 4.0, 9.0))


def test_each_series_has_a_shape_of_its_own() -> None:
    assert len({outline(style, 0, 0) for style in range(STYLES)}) == STYLES


def test_numbers_stand_by_x() -> None:
    one = Series(name="a", points=(Point(x=1, y=0.5), Point(x=2, y=0.25)))
    other = Series(name="b", points=(Point(x=2, y=0.75),))
    headings, rows = chart(series=(one, other)).numbers
    assert headings == ["x", "a", "b"]
    assert rows == [["1", "0.5000", "–"], ["2", "0.2500", "0.7500"]]


def test_intervals_of_a_column_share_a_scale() -> None:
    def row(low: float, value: float, high: float) -> tuple[Cell, ...]:
        return (Cell(text="x"), Cell(text="y", interval=Interval(low=low, value=value, high=high)))

    columns = (Column(name="a"), Column(name="b"))
    table = Table(caption="c", columns=columns, rows=(row(0.0, 1.0, 2.0), row(2.0, 3.0, 4.0)))
    assert [table.place(1, value) for value in (0.0, 1.0, 4.0)] == [0.0, 25.0, 100.0]
    flat = Table(caption="c", columns=columns, rows=(row(1.0, 1.0, 1.0),))
    assert flat.place(1, 1.0) == 50.0
