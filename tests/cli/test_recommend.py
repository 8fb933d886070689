"""`recsys recommend` on the tiny bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recsys.cli import main


def test_a_user_sees_what_they_liked_and_what_comes_next(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tiny_bundle), "--user", "1"]) == 0
    out = capsys.readouterr().out
    liked, recommended = out.split("tiny 1 recommends")
    assert "User 1 liked lately" in liked
    assert [row.split() for row in liked.splitlines() if row.strip()][-4:] == [
        ["Three", "3"],
        ["Two", "2"],
        ["9"],
        ["Ten", "10"],
    ]
    rows = [row.split() for row in recommended.splitlines() if row.strip()]
    assert rows[0] == ["rank", "title", "item", "score"]
    assert rows[2:] == [["1", "日本", "(1959)", "日本", "29.5000"], ["2", "Été", "é", "-2.0000"]]


def test_json_for_programs_from_a_run_directory(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_bundle.parent.parent
    assert main(["recommend", str(run), "--user", "zoë", "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "items": [{"item": "9", "title": None, "score": 249.0}],
        "user": "zoë",
        "bundle": {"name": "tiny", "version": 1},
        "liked": [{"item": "日本", "title": "日本 (1959)"}],
    }


def test_features_without_a_user_and_with_one(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tiny_bundle), "--features", '{"genre": "comedy"}', "-k", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["items"], found["user"], found["liked"]) == ([{"item": "10", "title": "Ten", "score": 2.0}], None, [])
    assert main(["recommend", str(tiny_bundle), "--user", "42", "--features", '{"price": 7}', "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == [{"item": "9", "title": None, "score": 7.0}]


def test_a_user_without_a_history(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tiny_bundle), "--user", "42"]) == 0
    assert "User 42 has no history." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "found", "cure"),
    [
        ([], "nobody to recommend to, and no item", "--user 42"),
        (["--user", "nobody"], "no user 'nobody'", "features"),
        (["--features", "{"], "is no JSON", """'{"age": 35}'"""),
        (["--features", "1" * 5000], "is no JSON", """'{"age": 35}'"""),
        (["--features", "[]"], "[]", "send a JSON object"),
        (["--features", '{"genres": 1}'], "no such feature", "did you mean genre?"),
        (["--features", '{"price": NaN}'], "features.price: nan", "null"),
        (["--user", "1", "-k", "0"], "k: 0", "leave it out"),
    ],
)
def test_mistakes_are_one_line_with_a_cure(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str, cure: str
) -> None:
    assert main(["recommend", str(tiny_bundle), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert found in line
    assert cure in line


def test_a_damaged_and_an_absent_bundle(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "1")
    (damaged / "items.parquet").unlink()
    assert main(["recommend", str(damaged), "--user", "1"]) == 1
    assert f"error: {damaged / 'items.parquet'}: is missing" in capsys.readouterr().err
    assert main(["recommend", str(tmp_path / "none"), "--user", "1"]) == 1
    assert "recsys export RUN" in capsys.readouterr().err
