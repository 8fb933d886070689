"""From a report to one page of HTML that stands by itself: no request leaves it, and every text in it is escaped."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report import charts
from recsys.report.document import Report


def render(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("recsys.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("recsys.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html")
    return page.render(report=report, style=Markup(style), charts=charts)  # the style is our own file
