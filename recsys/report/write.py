"""`report.html` of a run directory."""

from __future__ import annotations

from pathlib import Path

from recsys.files import write_text
from recsys.report.compose import compose
from recsys.report.render import render

REPORT = "report.html"


def write_report(run: Path) -> Path:
    """Writes the report of a run into its directory, in place of an earlier one; returns its path.

    Raises:
        ConfigError: the folder is no run directory, or nothing has been trained in it yet.
        DataError, BundleError: a file in it cannot be read.
    """
    path = run / REPORT
    write_text(path, render(compose(run)))
    return path
