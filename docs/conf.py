"""The documentation as a site: `make docs`, in which a warning is an error."""

from __future__ import annotations

import os
import re
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from recsys import __version__

project = "recsys"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Classes have a short name in their package and a long one in their module; a mention means either.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "recsys"
html_show_copyright = False

myst_heading_anchors = 4  # links to #section, as on GitHub
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"

_CODE = re.compile(r"(?<![`\\])`([^`]+)`(?![`])(\w?)")


def _from_markdown(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write code in single backquotes, as Markdown does, and norms as |x|, which mean other things here."""
    text = _CODE.sub(lambda found: f"``{found[1]}``" + (rf"\ {found[2]}" if found[2] else ""), "\n".join(lines))
    parts = re.split(r"(``[^`]+``)", text)
    lines[:] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts).split("\n")


def setup(app: Any) -> None:
    """Before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _from_markdown, priority=400)
