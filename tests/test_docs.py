"""The figures in the docs are those of the records."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_figures_of_unified_embedding_are_the_records() -> None:
    """`python benchmarks/unified_embedding.py --write` makes them so."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from table import marked
        from unified_embedding import PAGE, sections

        found = sections()
    finally:
        sys.path.pop(0)
    page = PAGE.read_text(encoding="utf-8")
    for marks, text in found.items():
        assert all(page.count(mark) == 1 for mark in marks)
        assert marked(page, marks)[1] == text


def test_the_figures_of_quantized_rows_and_lazy_optimizers_are_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/embedding_quality.py --write` makes them so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from embedding_quality import MARKS, pages
    from table import marked

    for path, text in pages().items():
        page = path.read_text(encoding="utf-8")
        assert all(page.count(mark) == 1 for mark in MARKS)
        assert marked(page, MARKS)[1] == text
