"""`recsys compare`: evaluated runs, user by user."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from recsys.cli import main
from recsys.evaluation.evidence import Evidence, Measured

SLICES = (("new", 0), ("returning", 20))


def write(folder: Path, shift: float, digest: str = "d") -> Path:
    """An evaluated run: 40 users, half of them new."""
    base = np.random.default_rng(0).random(40)
    users = np.array([f"u{n:02}" for n in range(40)])
    whole = Evidence(users, {"ndcg@10": base + shift, "mrr@10": base})
    slices = {("returning", name): whole.take(np.arange(start, start + 20), ["ndcg@10"]) for name, start in SLICES}
    Measured(digest, "test", whole, slices).write(folder / "evaluation" / "model.parquet")
    return folder


def test_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write(tmp_path / name, shift)) for name, shift in (("old", 0.0), ("new", 0.1), ("same", 0.0))]
    assert main(["compare", *runs]) == 0
    text = capsys.readouterr().out
    assert "ndcg@10: 0.5367 in old, 40 users" in text
    new, same = (next(line for line in text.splitlines() if name in line.split()) for name in ("new", "same"))
    assert "+0.1000" in new
    assert "real" in new
    assert "maybe noise" in same

    assert main(["compare", *runs, "--metric", "mrr@10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == "old"
    assert [(each["run"], each["metric"], each["real"]) for each in found["differences"]] == [
        ("new", "mrr@10", False),
        ("same", "mrr@10", False),
    ]


def test_runs_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write(tmp_path / side / "run", 0.0)) for side in "ab"]
    assert main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reference"] == runs[0]


def test_slices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write(tmp_path / name, shift)) for name, shift in (("old", 0.0), ("new", 0.1))]
    assert main(["compare", *runs, "--slice", "returning"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"ndcg@10 where returning is new: 0\.\d+ in old, 20 users", text)
    assert re.search(r"ndcg@10 where returning is returning: 0\.\d+ in old, 20 users", text)
    assert main(["compare", *runs, "--slice", "returning=new", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["differences"]
    assert (found["by"], found["slice"], found["users"], found["real"]) == ("returning", "new", 20, True)


@pytest.mark.parametrize(
    ("second", "options", "text"),
    [
        (None, [], "at least two"),
        ("missing", [], "evaluate the run again"),
        ("other", [], "different data"),
        ("new", ["--metric", "auc"], "no metric 'auc'"),
        ("new", ["--slice", "age"], "old has no slice 'age'; expected one of returning"),
        ("new", ["--slice", "returning=old"], "expected one of returning=new, returning=returning"),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: str | None, options: list[str], text: str
) -> None:
    write(tmp_path / "old", 0.0)
    write(tmp_path / "new", 0.1)
    write(tmp_path / "other", 0.1, digest="e")
    runs = [str(tmp_path / name) for name in ("old", second) if name]
    assert main(["compare", *runs, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert len(error.splitlines()) == 1
