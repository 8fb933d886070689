"""`recsys explain` on a small ranker: what it writes, what it prints, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import Experiment
from recsys.cli import main
from tests.trained import Trained

CONFIG = """\
name: looks
data:
  source: {kind: simulated, users: 60, items: 60, events: 1800, seed: 3}
  positives: {column: rating, at_least: 3}
  negatives: {column: rating, at_most: 2}
  split: {kind: temporal, valid: 0.2, test: 0.2}
schema:
  user: user_id
  item: item_id
  timestamp: timestamp
  title: title
  features:
    item_id: {kind: categorical, role: item}
    history: {kind: sequence, of: item_id, max_length: 5}
    age: {kind: categorical, role: user}
    device: {kind: categorical, role: context}
embeddings:
  tables: {all: {dim: 4, initializer: {range: 1.0}}}
  features:
    item_id: {table: all}
    history: {table: all, pooling: none}
    age: {table: all}
    device: {table: all}
model:
  kind: ranker
  sequence: {kind: din, hidden: [4]}
  interaction: {kind: autoint, layers: 2, heads: 2, head_dim: 4}
  mlp: {hidden: []}
training: {batch_size: 64, epochs: 1, early_stopping: null, tensorboard: false}
"""
FIELDS = ["item_id", "age", "device"]
FILES = {"explanation.json", "attention.png", "history.png"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "looks.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(folder / "cache"))
        experiment = Experiment.from_yaml(folder / "looks.yaml", runs=folder / "runs")
        experiment.train()
    return experiment.folder


@pytest.fixture(autouse=True)
def cache(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(run.parents[1] / "cache"))


def explained(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_a_run(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = explained(capfd, str(run), "--examples", "2")
    files = FILES | {f"example-{n}-{what}.png" for n in (1, 2) for what in ("attention", "history")}
    assert {Path(path).name for path in found["written"]} == files
    assert {path.name for path in (run / "explain").iterdir()} == files
    pictures = [path for path in (run / "explain").iterdir() if path.suffix == ".png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    record = json.loads((run / "explain" / "explanation.json").read_text())
    assert {name: found[name] for name in record} == record
    assert record["fields"] == FIELDS
    np.testing.assert_allclose(np.sum(record["mean"]["attention"], -1), np.ones((2, 2, 3)), atol=1e-5)
    assert record["examples"] == Experiment.from_yaml(run).prepared.info.counts.test
    assert [len(each["events"]) for each in record["predictions"]] == [5, 5]
    # A second explanation replaces the first.
    explained(capfd, str(run), "--examples", "1")
    assert {path.name for path in (run / "explain").iterdir()} == {name for name in files if "-2-" not in name}


def test_the_trained_weights_are_looked_through(run: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of the part, the user and the item that are asked for, in the folder that is asked for."""
    experiment = Experiment.from_yaml(run)
    prepared, model = experiment.prepared, experiment.trained_model()
    table = prepared.examples("valid", ["user_index", "item_index"])
    user, item = (str(prepared.users["user"][table["user_index"][5].as_py()]), table["item_index"][5].as_py())
    name = str(prepared.items["item"][item])
    out = tmp_path / "elsewhere"
    found = explained(capfd, str(run), "--part", "valid", "--user", user, "--item", name, "--out", str(out))
    assert found["part"] == "valid"
    assert {(each["user"], each["item"]) for each in found["predictions"]} == {(user, name)}
    assert (out / "explanation.json").exists()
    from recsys.data.reader import Examples

    (row,) = [n for n, each in enumerate(table.to_pylist()) if each == table.to_pylist()[5]][:1]
    looks = model.looks(Examples(prepared, "valid", 1, seed=None).take(np.array([row])))  # type: ignore[attr-defined]
    np.testing.assert_allclose(found["predictions"][0]["attention"], looks["attention"][0], atol=1e-5)


def test_people_get_tables(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(run), "--examples", "1"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("Fields that looks heeds: shares in the mean over ")
    assert lines[1].split() == ["field", "heeded", "layer", "1", "layer", "2"]
    rows = [line.split() for line in lines[3:6]]
    assert [row[0] for row in rows] == FIELDS
    np.testing.assert_allclose(np.sum([[float(cell) for cell in row[1:]] for row in rows], 0), 1.0, atol=2e-4)
    assert any(line.startswith("Weights say where a layer looked") for line in lines)
    assert sum(line.startswith("wrote ") for line in lines) == 5


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_mistakes(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused(capfd, "runs/no").startswith("error: runs/no: no run directory; expected the run directory of a")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    assert refused(capfd, str(run), "--out", str(full)) == (
        f"error: {full}: is there already; expected a new or an empty folder; name another by --out"
    )
    assert refused(capfd, str(run), "--user", "nobody", "--out", str(tmp_path / "new")) == (
        "error: looks: test: no example of user 'nobody'; expected at least one; ask for another, or for another part"
    )
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new").exists()


def test_a_two_tower_weighs_nothing(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused(capfd, "runs/small").startswith("error: model: no layer of it weighs fields or events")
    assert not (trained_copy.run / "explain").exists()
