"""What docs/methods/dare.md shows of long histories is what the records say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/long_histories.py --write` and `python benchmarks/long_search.py --write` make it so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import long_histories
    import long_search
    from table import marked

    page = long_search.PAGE.read_text(encoding="utf-8")
    record = json.loads(long_search.RESULTS.read_text(encoding="utf-8"))
    for marks, text in ((long_histories.MARKS, long_histories.table()), (long_search.MARKS, long_search.table(record))):
        assert page.count(marks[0]) == 1
        # Both tables end with the same mark.
        assert marked(page, marks)[1] == text
