"""Where the lines of a chart go: scales, ticks and paths, in the units of its picture. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from recsys.config.base import Config, Many

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 26, 50
"""Margins: for the numbers and names of the axes."""
STYLES = 6
"""Colours, each with a marker of its own."""


class Point(Config):
    """One of a line's, with the interval of y if it is known."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Series(Config):
    """One line."""

    name: str
    points: Many[Point]
    dashed: bool = False
    line: bool = True
    """Whether the points are joined."""


class Rule(Config):
    """A line across the chart."""

    name: str
    y: float


class Tick(Config):
    """A number at an axis."""

    place: float
    text: str


class LineChart(Config):
    """Lines over one axis; `x` rises from left to right."""

    kind: Literal["lines"] = "lines"
    id: str
    title: str
    description: str
    """What is to be seen, for those who do not see it."""
    x_label: str
    y_label: str
    series: Annotated[Many[Series], Field(min_length=1)]
    rules: Many[Rule] = ()
    ringed: Point | None = None
    """The point that was chosen."""
    log_x: bool = False
    bytes_x: bool = False
    diagonal: bool = False
    """Whether the line y = x is drawn, and both axes go from 0 to 1."""

    @property
    def x_range(self) -> tuple[float, float]:
        """Of the axis; of its logarithms where it has them."""
        if self.diagonal:
            return 0.0, 1.0
        found = [self._scaled(point.x) for each in self.series for point in each.points]
        low, high = min(found), max(found)
        pad = 0.04 * (high - low) or 0.5
        return low - pad, high + pad

    @property
    def y_range(self) -> tuple[float, float]:
        """Of the axis."""
        if self.diagonal:
            return 0.0, 1.0
        points = [point for each in self.series for point in each.points]
        found = [end for p in points for end in (p.y, p.low, p.high) if end is not None]
        found += [rule.y for rule in self.rules]
        low, high = min(found), max(found)
        pad = 0.08 * (high - low) or abs(high) * 0.1 or 0.5
        return low - pad, high + pad

    def at_x(self, x: float) -> float:
        """Where x stands in the picture."""
        return self._place(self._scaled(x), self.x_range, LEFT, WIDTH - RIGHT)

    def at_y(self, y: float) -> float:
        """Where y stands in the picture."""
        return self._place(y, self.y_range, HEIGHT - BOTTOM, TOP)

    @property
    def x_ticks(self) -> list[Tick]:
        """Round numbers of the axis."""
        low, high = self.x_range
        if self.log_x:
            values = _round_logs(10**low, 10**high)
        else:
            values = _round(low, high, whole=not self.diagonal and self._has_whole_x)
        return [Tick(place=self.at_x(value), text=self._x_text(value)) for value in values]

    @property
    def y_ticks(self) -> list[Tick]:
        """Likewise."""
        values = _round(*self.y_range)
        digits = _digits(values)
        return [Tick(place=self.at_y(value), text=f"{value:,.{digits}f}") for value in values]

    def path(self, series: Series) -> str:
        """The line of a series."""
        return "M" + " L".join(f"{self.at_x(p.x):g} {self.at_y(p.y):g}" for p in series.points)

    def marker(self, style: int, point: Point) -> str:
        """The outline of a series' marker at a point."""
        return outline(style, self.at_x(point.x), self.at_y(point.y))

    @property
    def numbers(self) -> tuple[list[str], list[list[str]]]:
        """The same as a table: headings and rows, one for each x."""
        xs = sorted({point.x for each in self.series for point in each.points})
        known = [{point.x: f"{point.y:.4f}" for point in each.points} for each in self.series]
        rows = [[self._x_text(x), *(column.get(x, "–") for column in known)] for x in xs]
        return [self.x_label, *(each.name for each in self.series)], rows

    @property
    def _has_whole_x(self) -> bool:
        return all(point.x == int(point.x) for each in self.series for point in each.points)

    def _scaled(self, x: float) -> float:
        return math.log10(x) if self.log_x else x

    def _x_text(self, value: float) -> str:
        return size(value) if self.bytes_x else f"{value:.4g}"

    def _place(self, value: float, scale: tuple[float, float], start: int, stop: int) -> float:
        low, high = scale
        return round(start + (stop - start) * (value - low) / (high - low), 1)


def outline(style: int, x: float, y: float) -> str:
    """Of a marker: circle, square, diamond, triangles, plus; people who see no colours tell them apart."""
    r = 3.6
    match style % STYLES:
        case 0:
            return f"M{x - r:g} {y:g}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
        case 1:
            return f"M{x - r:g} {y - r:g}h{2 * r}v{2 * r}h{-2 * r}z"
        case 2:
            return f"M{x:g} {y - 4.8:g}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"
        case 3:
            return f"M{x:g} {y - 4.4:g}l4.4 7.6h-8.8z"
        case 4:
            return f"M{x:g} {y + 4.4:g}l4.4 -7.6h-8.8z"
        case _:
            return f"M{x - 1.4:g} {y - 4:g}h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z"


def size(count: float) -> str:
    """Bytes for people.

    >>> size(1_236_768), size(900)
    ('1.24 MB', '900 B')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def _round(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to eight multiples of 1, 2 or 5 times a power of ten.

    >>> _round(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _round_logs(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or those powers alone where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors: Sequence[int] = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) > 1 else _round(low, high)


def _digits(values: Sequence[float]) -> int:
    """Decimals that tell them apart."""
    return max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values), default=0)
