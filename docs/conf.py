"""The documentation as a site: `make docs`, in which a warning is an error."""

from __future__ import annotations

import os
import re
from inspect import isroutine
from pydoc import locate
from typing import Any

from pydantic import BaseModel

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
    if what == "attribute":
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type
        lines += _default(name)


def _default(name: str) -> list[str]:
    """What a key is if it is left out."""
    owner, _, field = name.rpartition(".")
    found = getattr(locate(owner), "model_fields", {}).get(field)
    if found is None or found.is_required():
        return []
    value = found.get_default(call_default_factory=True)
    return ["", "Default: its own defaults." if isinstance(value, BaseModel) else f"Default: ``{value!r}``."]


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """What is no key of the YAML is none of the configuration's."""
    if app.env.current_document.docname != "api/configuration":
        return None
    is_constant = what == "module" and not isinstance(obj, type)
    return True if is_constant or isinstance(obj, property) or name == "model_config" or isroutine(obj) else None


def setup(app: Any) -> None:
    """Before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _from_markdown, priority=400)
    app.connect("autodoc-skip-member", _skip)
