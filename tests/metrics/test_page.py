"""The figures of docs/metrics.md are those of the record, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys import metrics

ROOT = Path(__file__).parents[2]


def test_the_figures_are_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/significance.py --write` makes them so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from significance import LAWS, PAGE, USERS, read, tables
    from table import marked

    page = PAGE.read_text(encoding="utf-8")
    for marks, text in tables().items():
        assert all(page.count(mark) == 1 for mark in marks)
        assert marked(page, marks)[1] == text
    assert len(read()["coverage"]) == len(LAWS) * len(USERS)
    assert USERS[-1] == metrics.intervals.MANY


def test_what_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/.-])(?:recsys|tests|benchmarks|docs)/[\w./-]+\.(?:py|md)\b", page)
    assert paths
    assert not [path for path in paths if not (ROOT / path).is_file()]
    for name in ("bootstrap_intervals", "randomization_test", "hits"):
        assert f"{name}`" in page
        assert hasattr(metrics, name)
