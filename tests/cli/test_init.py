"""`recsys init`: the YAML that it writes is sound, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.config.load import load
from recsys.data.prepare import prepare
from recsys.data.prepared import Prepared
from recsys.data.simulator import simulate
from recsys.data.simulator_config import SimulatorConfig
from recsys.data.sources import resolve
from recsys.experiment import ExperimentConfig


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw data"
    simulate(SimulatorConfig(users=60, items=50, events=1_000), folder)
    return folder


def tables(world: Path) -> list[str]:
    return [
        str(world / "events.parquet"),
        "--items",
        str(world / "items.parquet"),
        "--users",
        str(world / "users.parquet"),
    ]


def test_the_starter_is_sound_and_its_data_can_be_prepared(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "configs" / "first.yaml"
    assert main(["init", *tables(world), "--out", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(path)
    loaded = load(path, ExperimentConfig)
    config = loaded.config
    assert config.name == "first"
    assert config.table_schema.title == "title"
    assert config.data.positives is not None
    assert config.data.positives.at_least == 4.0
    kinds = {name: (feature.kind, feature.role) for name, feature in config.table_schema.features.items()}
    assert kinds == {
        "user_id": ("categorical", "user"),
        "item_id": ("categorical", "item"),
        "age": ("categorical", "user"),
        "country": ("categorical", "user"),
        "category": ("categorical", "item"),
        "tags": ("multi_valued", "item"),
        "price": ("numeric", "item"),
        "device": ("categorical", "context"),
        "hour": ("categorical", "context"),
        "history": ("sequence", "user"),
    }
    assert config.embeddings.features["history"].table == config.embeddings.features["item_id"].table
    source = resolve(config.data.source, path.parent)
    info = Prepared(prepare(config.name, config.data, config.table_schema, source)).info
    assert info.counts.users == 60
    assert set(info.features) == set(kinds)


def test_csv_with_hardly_anything_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"u{n % 7},i{n % 5}\n" for n in range(50))
    Path("my clicks.csv").write_text("user,item\n" + rows)
    assert main(["init", "my clicks.csv"]) == 0
    config = load("my-clicks.yaml", ExperimentConfig).config
    assert config.data.split.kind == "random"
    assert config.data.positives is None
    assert resolve(config.data.source, Path()).events == (Path("my clicks.csv"),)


def test_csv_with_times_in_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten days, two ways of writing, a tenth of the events on each day: the last day tests."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [f"u{n % 7},i{n % 9},2024-02-{24 + n // 40:02}T0{n % 9}:30:00" for n in range(240)]
    rows += [f"u{n % 7},i{n % 9},2024-03-{n // 40 - 5:02} 00:30:00.5+02:00" for n in range(240, 400)]
    Path("clicks.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    assert main(["init", "clicks.csv"]) == 0
    config = load("clicks.yaml", ExperimentConfig).config
    assert config.table_schema.timestamp == "timestamp"
    assert config.data.split.kind == "temporal"
    assert config.table_schema.features["history"].kind == "sequence"
    assert main(["prepare", "clicks.yaml"]) == 0
    prepared = prepare(config.name, config.data, config.table_schema, resolve(config.data.source, Path()))
    assert Prepared(prepared).info.counts.test == 40
    times = pq.read_table(prepared / "test")["time"].to_pylist()
    assert set(times) == {19_786 * 86_400 + 1_800 - 7_200}, "2024-03-04 is day 19,786"


def test_people_are_told_features_notes_and_what_is_next(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(world / "events.parquet")]) == 0
    text = capsys.readouterr().out
    assert "wrote events.yaml" in text
    assert "next: recsys run events.yaml" in text
    assert "sequence" in text


def test_an_existing_yaml_is_kept_unless_forced(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("events.yaml")
    path.write_text("mine")
    assert main(["init", *tables(world)]) == 1
    assert (
        "events.yaml: is already there; name another file by --out, or overwrite it by --force"
        in capsys.readouterr().err
    )
    assert path.read_text() == "mine"
    assert main(["init", *tables(world), "--force"]) == 0
    assert load(path, ExperimentConfig).config.name == "events"


def test_what_cannot_be_told_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log.csv", tmp_path / "log.yaml"
    log.write_text("a,b\n" + "".join(f"u{n % 7},i{n % 5}\n" for n in range(50)))
    assert main(["init", str(log), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "no column that names the user (columns: a, b); name it: --user COLUMN" in error
    assert "no column that names the item (columns: a, b); name it: --item COLUMN" in error
    assert list(tmp_path.iterdir()) == [log]
    assert main(["init", str(log), "--out", str(out), "--user", "a", "--item", "b"]) == 0
    assert load(out, ExperimentConfig).config.table_schema.user == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "error: recsys init: events: no file nowhere.csv"),
        (["log.csv", "--items", "nowhere.csv"], "error: recsys init: items: no file nowhere.csv"),
        (["log.txt"], "error: log.txt: files ending in '.txt'; expected .parquet, .csv or .tsv"),
        (["bad.parquet"], "error: bad.parquet: not readable as Parquet"),
    ],
)
def test_files_that_cannot_be_read(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("log.csv", "log.txt", "bad.parquet"):
        Path(name).write_text("user,item\na,b\n")
    assert main(["init", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))


def test_init_needs_no_tensorflow(world: Path) -> None:
    code = (
        "import sys; from recsys.cli import main; "
        f"assert main(['init', {str(world / 'events.parquet')!r}]) == 0; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
