from .compose import compose as compose
from .document import Report as Report
from .render import render as render
from .write import REPORT as REPORT
from .write import write_report as write_report

__all__ = ["REPORT", "Report", "compose", "render", "write_report"]
