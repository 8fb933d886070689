"""What a report says, apart from how it looks: sections of blocks, every number already in words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.config.base import Config, Many
from recsys.report.charts import LineChart

Tone = Literal["plain", "good", "bad", "faint"]
"""What a cell says of the model; it is said in words as well."""


class Interval(Config):
    """A value and where its true value may lie, to be drawn on a scale that the cells of a column share."""

    low: float
    value: float
    high: float


class Cell(Config):
    """One cell of a table."""

    text: str
    tone: Tone = "plain"
    interval: Interval | None = None
    """Drawn in place of the text, which screen readers get."""
    shade: Annotated[float, Field(ge=0, le=1)] | None = None
    """How dark the cell's ground is."""


class Column(Config):
    """A heading."""

    name: str
    number: bool = False
    """Whether its cells stand to the right."""


class Table(Config):
    """Rows; the first cell of each is its heading."""

    kind: Literal["table"] = "table"
    caption: str
    columns: Many[Column]
    rows: Many[Many[Cell]]
    note: str = ""
    """Below it."""

    def scale(self, column: int) -> tuple[float, float]:
        """From where to where the intervals of a column reach."""
        found = [row[column].interval for row in self.rows]
        ends = [end for each in found if each is not None for end in (each.low, each.value, each.high)]
        low, high = min(ends, default=0.0), max(ends, default=1.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def place(self, column: int, value: float) -> float:
        """Of a value on the scale of its column, between 0 and 100."""
        low, high = self.scale(column)
        return round(100 * (value - low) / (high - low), 2)


class Facts(Config):
    """Names and what is said of them."""

    kind: Literal["facts"] = "facts"
    facts: Many[tuple[str, str]]


class Text(Config):
    """A paragraph."""

    kind: Literal["text"] = "text"
    text: str


class Points(Config):
    """A list of sentences."""

    kind: Literal["points"] = "points"
    title: str
    points: Many[str]


class Code(Config):
    """Commands, or a file, as they are."""

    kind: Literal["code"] = "code"
    title: str
    code: str
    folded: bool = False
    """Whether it is shown only when asked for."""


class Suggestion(Config):
    """An item in a person's list."""

    name: str
    detail: str = ""
    wanted: bool = False


class Person(Config):
    """One user: what they liked, and what they are shown."""

    kind: Literal["person"] = "person"
    name: str
    liked: Many[str]
    shown: Many[Suggestion]
    outcome: str
    """What came of it."""


Block = Annotated[Table | Facts | Text | Points | Code | Person | LineChart, Field(discriminator="kind")]


class Section(Config):
    """A part of the report."""

    id: str
    title: str
    blocks: Many[Block]


class Warned(Config):
    """What makes numbers doubtful."""

    text: str
    serious: bool
    """Whether the numbers may be wrong, and not merely say little."""


class Missing(Config):
    """A part that the run does not have yet."""

    what: str
    cure: str
    """A command, or why there is none."""


class Report(Config):
    """The whole of it."""

    name: str
    kind: str
    """What was run: a two_tower, a ranker, a backtest, ..."""
    date: str
    headline: str
    """The result, in a sentence or two."""
    warnings: Many[Warned]
    sections: Many[Section]
    missing: Many[Missing]
    version: str
    """Of recsys."""
