"""`recsys prepare`, `init` and `config` load no TensorFlow where the schema hashes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli import main
from tests.trained import Trained

LOADED = (
    "import sys; from recsys.cli import main; code = main(sys.argv[1:]); print(int('tensorflow' in sys.modules), code)"
)


@pytest.fixture
def project(trained_copy: Trained) -> Path:
    """The shared run's YAML alone: no runs yet, nothing prepared."""
    shutil.rmtree(trained_copy.folder / "runs")
    shutil.rmtree(trained_copy.cache / "prepared")
    return trained_copy.folder


def loads_tensorflow(folder: Path, *arguments: str) -> bool:
    command = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    loaded, code = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return loaded == "1"


def test_prepare_init_and_config_load_no_tensorflow(project: Path) -> None:
    (events,) = (project / "cache" / "simulated").glob("*/events.parquet")
    for arguments in (
        ("prepare", "small.yaml"),
        ("config", "check", "small.yaml"),
        ("config", "show", "small.yaml"),
        ("init", str(events), "--out", "mine.yaml"),
        ("data", "list"),
    ):
        assert not loads_tensorflow(project, *arguments), arguments
    assert (project / "runs" / "small" / "prepared" / "dataset.json").is_file()


def test_prepare_loads_tensorflow_for_the_hash(project: Path) -> None:
    """Else the test above could not fail."""
    hashed = (
        *("--set", "schema.features.age.encoding={kind: hash}"),
        *("--set", "evaluation.slices=[]"),
        *("--set", "embeddings.tables.attribute={method: multiplexed, rows: 64, dim: 8}"),
    )
    assert loads_tensorflow(project, "prepare", "small.yaml", *hashed)


def test_what_it_says_and_where_it_wrote(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "small.yaml"]) == 0
    out, err = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if line.startswith("wrote ")]
    path = Path(line.removeprefix("wrote "))
    assert path.resolve() == (project / "runs" / "small" / "prepared").resolve()
    counts = json.loads((path / "dataset.json").read_text())["counts"]
    assert f"data: {counts['users']:,} users, {counts['items']:,} items; {counts['train']:,} training, " in err
    assert counts["dropped"] > 0
    assert f"{counts['dropped']:,} events left out, neither positive nor negative" in err
    assert {entry.name for entry in (project / "runs" / "small").iterdir()} == {
        "config.yaml",
        "origin.json",
        "cost.json",
        "prepared",
    }


def test_the_second_time_it_is_found_in_the_cache(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def prepared() -> dict[str, object]:
        assert main(["prepare", "small.yaml", "--json"]) == 0
        result: dict[str, object] = json.loads(capsys.readouterr().out)
        return result

    first = prepared()
    written = {path: path.stat().st_mtime_ns for path in Path(str(first["path"])).rglob("*")}
    assert prepared() == first
    assert {path: path.stat().st_mtime_ns for path in Path(str(first["path"])).rglob("*")} == written
    assert [path.name for path in (project / "cache" / "prepared").iterdir()] == [Path(str(first["path"])).name]
