"""`recsys data list | fetch | simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.data.ground_truth import GroundTruth
from recsys.data.public import DATASETS


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RECSYS_DATA, and a cache of its own."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("RECSYS_DATA", str(root))
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return root


def frappe(root: Path) -> None:
    folder = root / "frappe"
    folder.mkdir()
    (folder / "frappe.csv").write_text(
        "user\titem\tcnt\tdaytime\tweekday\tisweekend\thomework\tcost\tweather\tcountry\tcity\n"
        "3\t1\t7\tmorning\tsunday\tweekend\tunknown\tfree\tsunny\tSpain\t0\n"
    )
    (folder / "meta.csv").write_text(
        "item\tpackage\tcategory\tdownloads\tdeveloper\ticon\tlanguage\tdescription\tname\tprice\trating\tshort desc\n"
        "1\tcom.a\tTools\t1,000\tA\ticon\ten\ttext\tname\tFree\t4.5\tx\n"
    )


def test_list_tells_what_is_here_and_how_to_get_the_rest(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frappe(data)
    assert main(["data", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["datasets"]}
    assert set(listed) == set(DATASETS)
    assert listed["frappe"]["folder"] == str(data / "frappe")
    assert listed["frappe"]["bytes"] == sum(path.stat().st_size for path in (data / "frappe").iterdir())
    assert listed["movielens-1m"]["folder"] is None
    assert all(entry["licence"] and entry["page"].startswith("https://") for entry in listed.values())
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert "movielens-1m: not here (recsys data fetch movielens-1m)" in text
    assert "globo: not here (to be got by hand)" in text
    assert f"frappe: {data / 'frappe'}" in text


def test_fetch_writes_tables(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frappe(data)
    assert main(["data", "fetch", "frappe", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["tables"]) == {"events", "items"}
    assert pq.read_table(result["tables"]["events"])["user_id"].to_pylist() == [3]
    assert main(["data", "fetch", "frappe"]) == 0
    assert result["tables"]["items"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [("frapp", "did you mean 'frappe'?"), ("globo", "get it by hand from https://www.kaggle.com")],
)
def test_what_cannot_be_fetched(data: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", name]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert message in error[0]


def test_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "world"
    arguments = ["--out", str(out), "--users", "30", "--items", "40", "--events", "300", "--seed", "5"]
    assert main(["data", "simulate", *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert pq.read_metadata(result["tables"]["events"]).num_rows == 300
    config = GroundTruth.load(Path(result["truth"])).config
    assert (config.users, config.items, config.events, config.seed) == (30, 40, 300, 5)
    assert main(["data", "simulate", *arguments]) == 1
    assert "is already there" in capsys.readouterr().err


def test_simulate_refuses_what_no_world_has_room_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "world"
    assert main(["data", "simulate", "--out", str(out), "--users", "3", "--items", "4"]) == 1
    assert "error: recsys data simulate: 100000 events without repeats" in capsys.readouterr().err
    assert not out.exists()
