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


def test_the_page_says_what_the_record_does() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "planted-dimensions.json").read_text())
    page = " ".join((ROOT / "docs" / "methods" / "search.md").read_text(encoding="utf-8").split())

    def shown(method: str) -> tuple[str, str]:
        kept = record[method]["kept"]
        noise = [value for name, value in kept.items() if name.startswith("noise")]
        signal = [value for name, value in kept.items() if not name.startswith("noise")]
        return f"{np.mean(signal):.2f}".lstrip("0"), f"{np.mean(noise):.2f}".lstrip("0")

    assert (
        "OptEmbed keeps {} of the signal's numbers and {} of the noise's (p < 1e-6".format(*shown("optembed")) in page
    )
    assert record["optembed"]["p"] < 1e-6
    assert "DNIS {} and {} (p = {:.4f})".format(*shown("dnis"), record["dnis"]["p"]).replace("0.", ".") in page
    one = "({} and {}, p = {:.2f})".format(*shown("dnis, one table"), record["dnis, one table"]["p"])
    assert one.replace("0.", ".") in page
