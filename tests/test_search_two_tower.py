"""`recsys search` on a two_tower whose history reads the items' table: from the command to a model of its plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recsys.cli import main
from recsys.data.config import SimulatedSource
from recsys.data.simulator import simulated
from recsys.embeddings.plan import EmbeddingPlan
from recsys.search.frontier import SearchRecord
from tests.test_dimension_search import WORLD

CONFIG = """\
name: towers
data:
  source: {kind: files, events: EVENTS}
  split: {kind: leave_last_out}
schema:
  user: user_id
  item: item_id
  timestamp: timestamp
  features:
    item_id: {kind: categorical, role: item}
    history: {kind: sequence, of: item_id, max_length: 5}
    device: {kind: categorical, role: context}
embeddings:
  tables: {item: {dim: 8}, device: {dim: 4}}
  features: {item_id: {table: item}, history: {table: item}, device: {table: device}}
model:
  kind: two_tower
  query: {output_dim: 8}
  item: {output_dim: 8}
training: {batch_size: 128, epochs: 1, early_stopping: null, tensorboard: false}
evaluation: {ks: [5, 10]}
retrieval: {index: {kind: exact}, retriever_k: 5}
search:
  sizes: [0.5]
  methods:
    - {kind: optembed, evolution: {generations: 1, mutations: 2, crossovers: 2}}
    - {kind: dnis, selection: {epochs: 1}}
    - {kind: uniform}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the search has been run; `out.txt` is what it printed."""
    made = tmp_path_factory.mktemp("towers")
    (events,) = simulated(SimulatedSource.model_validate({"kind": "simulated", **WORLD})).events
    (made / "towers.yaml").write_text(CONFIG.replace("EVENTS", str(events)))
    return made


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")


def test_from_the_command_to_a_model_of_the_plan(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "towers.yaml", "--budget", "1200"]) == 0
    said = capfd.readouterr().out
    record = SearchRecord.model_validate_json(Path("runs/towers-search/search.json").read_bytes())
    assert record.monitor == "ndcg@10"
    assert {trial.method for trial in record.trials} == {"full", "optembed", "dnis", "uniform"}
    assert record.beside == ["recall@5"]
    full = record.trials[0].mean("recall@5", "test")
    (line,) = [line for line in said.splitlines() if re.match(r"\W*full\b", line)]
    assert f"{full:.5f}" in line
    assert re.search(r"trainings of the full model .*optembed \d+\.\d, dnis \d+\.\d, uniform \d+\.\d", said)
    # The history has no rows of its own, so the plan's item vocabulary is all that it reads.
    plan = EmbeddingPlan.load(Path("runs/towers-search/best"))
    assert {name: list(table.vocabularies) for name, table in plan.tables.items()} == {
        "item": ["item_id"],
        "device": ["device"],
    }
    assert plan.bytes() <= 1_200

    small = ["towers.yaml", "--set", "name=small", "--plan", "runs/towers-search/best"]
    assert main(["run", *small]) == 0
    metrics = json.loads(Path("runs/small/metrics.json").read_text())
    assert metrics["counts"]["table_bytes"] == plan.bytes()
    chosen = next(trial for trial in record.trials if trial.name == record.chosen)
    assert metrics["metrics"]["model"]["ndcg@10"] == pytest.approx(chosen.mean("ndcg@10", "test"), abs=1e-6), (
        "the plan alone gives the model that was measured"
    )


def test_a_method_keeps_the_settings_with_which_it_made_plans(capfd: pytest.CaptureFixture[str]) -> None:
    others = "search.methods=[{kind: uniform}, {kind: dnis, selection: {epochs: 2}}]"
    assert main(["search", "towers.yaml", "--budget", "1200", "--set", others]) == 1
    error = capfd.readouterr().err
    assert "search.methods: dnis: other settings than those with which" in error
    assert "remove the folder, or give the experiment another name" in error
