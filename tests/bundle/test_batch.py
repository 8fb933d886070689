"""Recommendations for many users at once are those of each by itself; what is written is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle import Bundle, batch
from recsys.cli import main
from recsys.errors import BundleError, DataError


def test_each_user_gets_what_a_request_gets(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: user 1 (comedy) has met items 0 to 3, and asks with e0 = 2; 42 has met nothing, and zoë the last."""
    bundle = Bundle.load(tiny_bundle)
    monkeypatch.setattr(batch, "USERS_AT_ONCE", 2)
    first, second = batch.recommend(bundle, np.array([0, 1, 2]), k=3)
    assert [set(table["user"].to_pylist()) for table in (first, second)] == [{"1", "42"}, {"zoë"}]
    found = pa.concat_tables([first, second])
    assert found.column_names == ["user", "rank", "item", "score"]
    of_first = found.filter(pa.compute.equal(found["user"], "1"))
    # Only é, with vector -e0, and 日本, with .5 e3, are left: e0 is 2, and e3 is -1 + 10 + 50 = 59.
    assert of_first.to_pylist() == [
        {"user": "1", "rank": 1, "item": "日本", "score": 29.5},
        {"user": "1", "rank": 2, "item": "é", "score": -2.0},
    ]
    assert found.filter(pa.compute.equal(found["user"], "zoë")).num_rows == 3
    assert "日本" not in found.filter(pa.compute.equal(found["user"], "zoë"))["item"].to_pylist()


def test_the_command_writes_them(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.parquet"
    assert main(["predict", str(tiny_bundle), "--out", str(out), "-k", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(out), "users": 3, "rows": 6}
    assert pq.read_table(out)["rank"].to_pylist() == [1, 2] * 3
    (tmp_path / "some.csv").write_text("user\nzoë\n")
    assert main(["predict", str(tiny_bundle), "--out", str(out), "--users", str(tmp_path / "some.csv")]) == 0
    assert "1 users, 5 rows" in capsys.readouterr().out
    assert set(pq.read_table(out)["user"].to_pylist()) == {"zoë"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--users", "unknown.csv"],
            "unknown.csv: column 'user': 1 ids that the bundle does not know, such as",
        ),
        (["--users", "named.csv"], "no column 'user' beside name"),
        (["--users", "none.csv"], "none.csv: no such file"),
        (["--users", "empty.csv"], "there is nothing to write"),
        (["--pairs", "pairs.csv"], "there is no ranker in this bundle"),
        (["--pairs", "pairs.csv", "-k", "3"], "--pairs beside --users, -k or --candidates"),
        (["--candidates", "9"], "--candidates: the bundle has no ranker"),
    ],
)
def test_mistakes_leave_nothing(
    tiny_bundle: Path,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"unknown": "user\n1\nnobody\n", "named": "name\n1\n", "empty": "user\n", "pairs": "user,item\n1,9\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    assert main(["predict", str(tiny_bundle), "--out", "out.parquet", *words]) == 1
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.csv" for name in files}


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("before")

    def broken() -> object:
        yield pa.table({"user": ["1"]})
        raise DataError("a row", "is broken")

    with pytest.raises(DataError, match="is broken"):
        batch.write_parquet(path, broken())  # type: ignore[arg-type]
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out.parquet", "before")]


def test_pairs_need_a_ranker(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no ranker"):
        next(batch.score_pairs(Bundle.load(tiny_bundle), pa.table({"user": ["1"], "item": ["9"]}), "pairs"))
