"""`recsys report`: one page on a run, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli._output import JsonOption, Output


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or that of a backtest.")],
    as_json: JsonOption = False,
) -> None:
    """Write report.html into a run directory: one page to read, print or pass on.

    Warnings come first. It is made of the records that other commands have left; it says which command gives what is
    missing.
    """
    from recsys.report import write_report

    out = Output(as_json)
    path = write_report(run)
    out.wrote(path)
    out.result({"path": path})
