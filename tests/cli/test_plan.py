"""`recsys plan show` and `recsys plan diff`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.cli import main
from recsys.embeddings.plan import Block, ElementBlock, EmbeddingPlan, Origin, RowBlock, TablePlan, VocabularyPlan

KEPT = np.arange(200) % 2 == 0


def plan(digest: str, *blocks: Block) -> EmbeddingPlan:
    own = {"a": VocabularyPlan(digest=digest, blocks=blocks), "b": VocabularyPlan(digest="b", blocks=(ROWS,))}
    origin = Origin(method="dnis", seed=3, budget=5_000, metrics={"auc": 0.75})
    return EmbeddingPlan(origin=origin, tables={"t": TablePlan(dim=4, vocabularies=own)})


ROWS = RowBlock(ids=10, coordinates=2)
WIDE, HALF = RowBlock(ids=200, coordinates=4), RowBlock(ids=200, coordinates=(0, 3), kept=KEPT)


@pytest.fixture(autouse=True)
def _plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    plan("d", RowBlock(ids=20, coordinates=4), RowBlock(ids=180, coordinates=1)).save(Path("mixed"))
    plan("d", HALF).save(Path("half"))
    plan("d", ElementBlock(kept=HALF.mask(4))).save(Path("single"))
    plan("e", WIDE).save(Path("other"))


def shown(*arguments: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_show(capfd: pytest.CaptureFixture[str]) -> None:
    found = shown("plan", "show", "half", capfd=capfd)
    assert found["bytes"] == EmbeddingPlan.load(Path("half")).bytes() == 4 * 2 * 110 + 40
    assert found["full_bytes"] == 16 * 210
    assert found["origin"]["metrics"] == {"auc": 0.75}
    a, b = found["fields"]
    assert a == {
        "table": "t",
        "field": "a",
        "ids": 200,
        "rows": 100,
        "width": "2",
        "numbers": 200,
        "bytes": 840,
        "full": 3_200,
        "share": 840 / 3_200,
    }
    assert (b["rows"], b["width"], b["bytes"]) == (10, "2", 80)
    widths = [shown("plan", "show", name, capfd=capfd)["fields"][0]["width"] for name in ("mixed", "single", "other")]
    assert widths == ["1 to 4", "mean 1", "4"]


def test_show_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "mixed"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("mixed  plan ")
    assert "origin: method dnis, seed 3, budget 5,000, metrics (auc 0.7500)" in text
    assert "1,120 bytes of 3,360 (33.33%, 3.0 times smaller)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_diff(capfd: pytest.CaptureFixture[str]) -> None:
    found = shown("plan", "diff", "half", "mixed", capfd=capfd)
    assert not found["same"]
    assert found["bytes"] == [4 * 2 * 110 + 40, 1_120]
    a, b = found["fields"]
    # Both keep coordinate 0 of 100 ids and 3 of the 10 even ones of the first 20; of 200 and 260 numbers.
    assert a["common"] == pytest.approx(110 / (200 + 260 - 110))
    assert (a["rows 1"], a["rows 2"], a["width 1"], a["width 2"]) == (100, 200, "2", "1 to 4")
    assert b["common"] == 1.0


def test_diff_of_one_mask_in_two_forms_and_of_two_vocabularies(capfd: pytest.CaptureFixture[str]) -> None:
    found = shown("plan", "diff", "half", "single", capfd=capfd)
    assert (found["same"], found["fields"][0]["common"]) == (False, 1.0)
    assert shown("plan", "diff", "half", "other", capfd=capfd)["fields"][0]["common"] is None
    assert shown("plan", "diff", "half", "half", capfd=capfd)["same"]
    assert main(["plan", "diff", "half", "other"]) == 0
    text = capfd.readouterr().out
    assert "the plans differ" in text
    assert "–" in text


def test_mistakes_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "none"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: none/plan.json: no such plan; expected a plan's folder")
    (Path("half") / "plan.json").write_text("{}")
    assert main(["plan", "diff", "half", "mixed"]) == 1
    assert all(line.startswith("error: half/plan.json: ") for line in capfd.readouterr().err.splitlines())


def test_it_needs_no_tensorflow() -> None:
    code = "import sys; from recsys.cli import main; main(['plan', 'show', 'half'])"
    code += "; assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
