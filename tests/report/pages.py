"""A report's page, read as a browser reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import html5lib

from recsys.report import compose, render


def parsed(page: str) -> Any:
    """As a browser reads it; raises where it would have to guess."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    for each in tree.iter():
        each.tag = each.tag.rpartition("}")[2] if isinstance(each.tag, str) else each.tag  # of SVG
    return tree


def text_of(element: Any) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def page_of(run: Path) -> tuple[str, Any]:
    page = render(compose(run))
    return page, parsed(page)


def section(tree: Any, name: str) -> str:
    (found,) = tree.findall(f".//section[@id='{name}']")
    return text_of(found)


def sections(tree: Any) -> list[str]:
    return [each.get("id") for each in tree.iter("section")]
