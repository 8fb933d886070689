"""`recsys backtest` of a ranker, cold and warm, and what `recsys compare` makes of the two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from recsys.cli import main
from recsys.cli.backtest import _moment
from tests.test_backtest import write_tiny

RANKER = [
    *("--set", "data.positives={column: rating, at_least: 4}", "--set", "data.negatives={column: rating, at_most: 2}"),
    *("--set", "model={kind: ranker, mlp: {hidden: [8]}}", "--windows", "2"),
]


def test_cold_warm_and_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    assert main(["backtest", "tiny.yaml", *RANKER]) == 0
    out, err = capsys.readouterr()
    (header,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["window"]]
    assert header[:5] == ["window", "from", "to", "users", "model"]
    constant = header.index("base_rate") + 2
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("tiny-window-")]
    # A moment is two words; all users are equal to the base rate.
    assert [(row[0], len(row), row[constant]) for row in rows] == [
        (f"tiny-window-{n}", len(header) + 2, "0.5000") for n in (1, 2)
    ]
    assert "wrote runs/tiny-backtest" in out
    assert err.count(" later events held back") == 1
    assert [line.split()[0] for line in err.splitlines() if "run directory" in line] == [row[0] for row in rows]

    warm = ["--warm-start", "--set", "name=warm", "--json"]
    assert main(["backtest", "tiny.yaml", *RANKER, *warm]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["warm_start"]
    assert [each["name"] for each in found["windows"]] == ["warm-window-1", "warm-window-2"]
    starts = [yaml.safe_load(Path(f"runs/warm-window-{n}/config.yaml").read_text())["training"] for n in (1, 2)]
    assert [each["warm_start"] for each in starts] == [None, "runs/warm-window-1"]
    assert json.loads(Path("runs/warm-window-2/origin.json").read_text())["warm_start"]

    assert main(["compare", "runs/tiny-backtest", "runs/warm-backtest", "--metric", "auc", "--json"]) == 0
    (difference,) = json.loads(capsys.readouterr().out)["differences"]
    assert (difference["run"], difference["against"]) == ("warm-backtest", "tiny-backtest")
    assert difference["value"] == pytest.approx(found["ranges"]["model"]["auc"]["value"])
    assert difference["difference"] != 0


def test_a_mistake_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    assert main(["backtest", "tiny.yaml", "--set", "data.split={kind: random}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: data.split.kind: random; expected temporal")
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("time", "unit", "text"),
    [(1_700_000_000, "s", "2023-11-14 22:13:20"), (1_700_000_000_999, "ms", "2023-11-14 22:13:20"), (99, "s", "99")],
)
def test_moments_are_utc_and_positions_numbers(time: int, unit: str, text: str) -> None:
    assert _moment(time, unit) == text  # type: ignore[arg-type]
