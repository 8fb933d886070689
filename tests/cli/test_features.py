"""`recsys features`: load, append, show."""

from __future__ import annotations

import json
from pathlib import Path
from time import time

import pytest

from recsys.cli import main
from tests.tiny_bundle import DAY


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["features", *arguments]) == code
    printed = capsys.readouterr()
    return printed.out if code == 0 else printed.err


def test_load_append_and_show(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "users.db")]
    assert "3 users of tiny 1 are in" in run(capsys, "load", str(tiny_bundle), *store)
    assert json.loads(run(capsys, "load", str(tiny_bundle), *store, "--json"))["users"] == 3
    run(capsys, "append", *store, "--user", "zoë", "--item", "9", "--time", "5")
    before = int(time())
    told = json.loads(run(capsys, "append", *store, "--user", "zoë", "--item", "2", "--json"))
    assert before <= told["time"] <= before + 60  # the bundle's unit is the second
    found = json.loads(run(capsys, "show", *store, "--user", "zoë", "--json"))
    assert found["features"] == {"genre": "drama", "tags": [], "taste": [0.0, 0.25]}
    times = [{"item": "9", "time": 5}, {"item": "日本", "time": DAY}, {"item": "2", "time": told["time"]}]
    assert found["history"] == times
    assert sorted(found["seen"]) == ["2", "9", "日本"]
    text = run(capsys, "show", *store, "--user", "zoë")
    assert 'genre: "drama"' in text
    assert "3 events, the newest first; 3 items seen" in text


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "users.db")]
    err = run(capsys, "append", *store, "--user", "u", "--item", "i", code=1)
    assert err.startswith("error: --time: nothing has been loaded into the store; expected")
    err = run(capsys, "append", *store, "--user", "u", "--item", "i", "--time", str(2**60), code=1)
    assert err.startswith("error: --time: time 1152921504606846976 is out of range")
    err = run(capsys, "show", *store, "--user", "nobody", code=1)
    assert err.startswith("error: --user: no user 'nobody' in")
    err = run(capsys, "show", "--store", f"unix://{tmp_path}/none.sock", "--user", "u", code=1)
    assert err.count("\n") == 1
    assert f"unix://{tmp_path}/none.sock: Redis cannot go on" in err
