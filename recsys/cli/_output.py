"""What every command shares: its options, and how it prints for people and for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", default_factory=list, help="Override a dotted key; may be repeated."),
]
"""Overrides for `recsys.config.load.load`. It has its own default: declare it as `overrides: SetOption`."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]


SHORT = 14
"""A column whose cells have no more characters is not folded."""
HEADING = 10
"""Headings of numbers are cut into lines of about so many characters."""


class Output:
    """Results go to stdout, everything else to stderr.

    With `json`, stdout gets the one object given to `result` and nothing else; without it, `result` prints nothing
    and people read `text`, `table` and `wrote`.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        from rich.console import Console

        return Console(highlight=False, markup=False, soft_wrap=True)

    @cached_property
    def errors(self) -> Console:
        """Standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def result(self, result: Mapping[str, Any]) -> None:
        """The command's result, for programs. Numbers that are not finite become null."""
        if self.json:
            from pydantic_core import to_json

            typer.echo(to_json(dict(result), indent=2, inf_nan_mode="null"))

    def text(self, text: str) -> None:
        """A line of the result, for people."""
        if not self.json:
            self.console.print(text)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        one_line: bool = False,
        fraction: str = ".4f",
    ) -> None:
        """A table of the result, for people. Columns of numbers stand to the right, fractions as `fraction` says.

        None is a dash. Long cells are folded, or with `one_line` cut.
        """
        if self.json:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        cells = [list(row) for row in rows]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for index, column in enumerate(columns):
            numbers = bool(cells) and all(isinstance(row[index], int | float | None) for row in cells)
            longest = max((len(_text(row[index], fraction)) for row in cells), default=0)
            table.add_column(
                _heading(column) if numbers else column,
                justify="right" if numbers else "left",
                no_wrap=one_line or longest <= SHORT,
                overflow="ellipsis" if one_line else "fold",
            )
        for row in cells:
            table.add_row(*(Text(_text(cell, fraction)) for cell in row))
        self.console.print(title)  # not the table's own title, which wraps at the table's width
        self.console.print(table, soft_wrap=False)
        self.console.print()

    def note(self, text: str) -> None:
        """A line about the work in progress."""
        self.errors.print(text)

    def wrote(self, path: Path | str) -> None:
        """Where a result was written."""
        self.text(f"wrote {path}")

    def progress(self) -> Progress:
        """A progress bar for long work, as a context manager (`rich.progress.Progress`)."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self.errors, transient=True)


def _text(cell: object, fraction: str) -> str:
    if cell is None:
        return "–"
    return format(cell, fraction) if isinstance(cell, float) else str(cell)


def _heading(name: str) -> str:
    """Cut where words meet.

    >>> _heading("category_in_history").splitlines()
    ['category', '_in', '_history']
    """
    lines = [""]
    for word in re.findall(r"[_ ]?[^_ ]+", name):
        if lines[-1] and len(lines[-1] + word) > HEADING:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.strip() for line in lines)
