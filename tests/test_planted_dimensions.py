"""Noise is seen as noise: one seed of `benchmarks/planted_dimensions.py`; and what its record says of more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def test_searches_keep_less_of_noise_than_of_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from planted_dimensions import BUDGET, NOISE, SIGNAL, searched

    found = searched(tmp_path / "seed", 0, False)
    for method, gap in {"dnis": 0.02, "optembed": 0.15}.items():
        kept = found[method]
        assert np.mean(list(kept.values())) < BUDGET
        assert np.mean([kept[name] for name in SIGNAL]) - np.mean([kept[name] for name in NOISE]) > gap, method


def test_the_record_says_that_both_searches_do_so_beyond_chance() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "planted-dimensions.json").read_text())
    assert record["seeds"] >= 5
    for method in ("dnis", "optembed"):
        assert record[method]["gap"] > 0
        assert record[method]["p"] < 0.01
