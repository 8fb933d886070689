"""A whole search on a small log: what it leaves, what a killed one does again, what it promises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from recsys.data.config import SimulatedSource
from recsys.data.simulator import simulated
from recsys.dimension_search import DimensionSearch, Progress
from recsys.dimension_search.dnis import SelectionSearch
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.dnis import SelectedRows
from recsys.embeddings.plan import EmbeddingPlan
from recsys.errors import ConfigError, DataError, SearchError
from recsys.evaluation.model import Evaluated
from recsys.experiment import Experiment
from recsys.models.base import EmbeddingModel
from recsys.search.config import DNISSearch, SelectionConfig
from recsys.search.frontier import Promise, SearchRecord

WORLD = {"users": 150, "items": 60, "events": 3_000, "seed": 3, "taste": 4.0}
CONFIG = """\
name: tiny
data:
  source: {kind: files, events: EVENTS}
  split: {kind: random}
  sampled_negatives: {per_positive: 1}
schema:
  user: user_id
  item: item_id
  features:
    user_id: {kind: categorical, role: user}
    item_id: {kind: categorical, role: item}
embeddings:
  tables: {id: {dim: 8}}
  features: {user_id: {table: id}, item_id: {table: id}}
model: {kind: ranker, mlp: {hidden: [8]}}
training: {batch_size: 256, epochs: 2, early_stopping: null, tensorboard: false, schedule: {decay: linear, end: 0.5}}
search:
  sizes: [0.5]
  methods:
    - {kind: optembed, evolution: {generations: 1, mutations: 2, crossovers: 2}}
    - {kind: dnis, selection: {epochs: 1}}
    - {kind: gradual_pruning}
    - {kind: uniform}
    - {kind: int8}
    - {kind: multiplexed}
"""
BUDGET = 2_500


@dataclass(frozen=True)
class Done:
    """A search that was cut off after its third training, and then run again."""

    yaml: Path
    runs: Path
    record: SearchRecord
    first: list[Progress]
    second: list[Progress]


def write_tiny(folder: Path) -> Path:
    (events,) = simulated(SimulatedSource.model_validate({"kind": "simulated", **WORLD})).events
    (folder / "tiny.yaml").write_text(CONFIG.replace("EVENTS", str(events)))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("search")
    yaml, runs = write_tiny(folder), folder / "runs"
    first, second = list[Progress](), list[Progress]()

    def cut_off(progress: Progress) -> None:
        first.append(progress)
        if progress.done == 3:
            raise KeyboardInterrupt

    promise = Promise(budget=BUDGET)
    with pytest.raises(KeyboardInterrupt):
        DimensionSearch(Experiment.from_yaml(yaml, runs=runs), promise, cut_off).run()
    record = DimensionSearch(Experiment.from_yaml(yaml, runs=runs), promise, second.append).run()
    return Done(yaml, runs, record, first, second)


def test_it_leaves_a_record_a_picture_and_the_plan(done: Done) -> None:
    folder = done.runs / "tiny-search"
    assert SearchRecord.model_validate_json((folder / "search.json").read_bytes()) == done.record
    assert (folder / "frontier.png").stat().st_size > 10_000
    assert done.record.full_bytes == 4 * 8 * (150 + 60 + 4)
    chosen = next(trial for trial in done.record.trials if trial.name == done.record.chosen)
    plan = EmbeddingPlan.load(folder / "best")
    assert plan.digest == EmbeddingPlan.load(folder / str(chosen.plan)).digest
    assert chosen.bytes <= BUDGET
    rivals = [each for each in done.record.trials if each.plan and each.bytes <= BUDGET]
    assert chosen.mean("auc") == max(each.mean("auc") for each in rivals)


def test_every_method_keeps_to_every_budget_and_is_served_at_its_bytes(done: Done) -> None:
    methods = {trial.method for trial in done.record.trials}
    assert methods == {"full", "optembed", "dnis", "gradual_pruning", "uniform", "int8", "multiplexed"}
    assert not done.record.unreachable
    for trial in done.record.trials:
        if trial.method == "full":
            continue
        assert trial.budget is not None
        assert trial.bytes <= trial.budget
        run = done.runs / "tiny-search" / "runs" / f"{trial.name}-seed0"
        model = Experiment.from_yaml(run).trained_model()
        served = model.embeddings.serve()["id"]
        stored = sum(int(v.shape.num_elements()) * v.dtype.size for v in served.variables)
        assert stored == trial.bytes, trial.name


def test_what_was_trained_before_the_kill_is_not_trained_again(done: Done) -> None:
    assert [each.done for each in done.first] == sorted(each.done for each in done.first)
    trained = {each.doing for each in done.first}
    # The first three are read; what is left is estimated from what this process has trained.
    early = [each for each in done.second if each.done <= 2]
    assert all(each.seconds_left is None for each in early)
    assert {each.doing for each in early} <= trained | {"optembed: training the supernet"}
    assert done.second[-1].seconds_left is not None


def test_a_selection_is_that_of_the_epoch_that_validates_best(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five epochs allowed it goes through three, and keeps the first; a killed search goes on to the same."""
    experiment = Experiment.from_yaml(done.yaml, runs=done.runs)
    full = Experiment.from_yaml(done.runs / "tiny-search" / "runs" / "full-seed0")
    method = DNISSearch(kind="dnis", selection=SelectionConfig(epochs=5, patience=2))
    told, selections = list[str](), list[NDArray[np.float32]]()
    qualities = {1: 0.7, 2: 0.6, 3: 0.65}

    def quality(model: EmbeddingModel, *_: object, **__: object) -> Evaluated:
        (store,) = (table.store for table in model.embeddings.tables.values())
        assert isinstance(store, SelectedRows)
        selections.append(store.selection.numpy())
        return Evaluated({"model": {"auc": qualities[len(told) + 1]}}, {})

    def report(doing: str) -> None:
        told.append(doing)
        if len(told) == 2 and not killed:
            killed.append(doing)
            raise KeyboardInterrupt

    killed = list[str]()
    monkeypatch.setattr("recsys.dimension_search.dnis.evaluate_model", quality)
    shop = Workshop(experiment, done.runs / "patience")
    with pytest.raises(KeyboardInterrupt):
        SelectionSearch(shop, method, full, report).plan(BUDGET)
    searched = SelectionSearch(shop, method, full, report)
    plan = searched.plan(BUDGET)
    assert told == [f"dnis: epoch {epoch} of at most 5" for epoch in (1, 2, 3)]
    (store,) = (table.store for table in searched._searched.embeddings.tables.values())
    assert isinstance(store, SelectedRows)
    np.testing.assert_array_equal(store.selection.numpy(), selections[0])
    assert (selections[0] != selections[1]).any()
    again = SelectionSearch(shop, method, full, report).plan(BUDGET)
    assert len(told) == 3
    assert again.digest == plan.digest


def test_nothing_to_validate_is_said_before_anything_is_trained(done: Done, tmp_path: Path) -> None:
    rows = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": [1, 2, 2, 3, 1, 3], "time": [1, 2, 1, 2, 1, 2]})
    rows.to_parquet(tmp_path / "events.parquet")
    overrides = [
        f"data.source.events={tmp_path / 'events.parquet'}",
        "data.split={kind: leave_last_out}",
        "data.sampled_negatives={per_positive: 1}",
        "schema.timestamp=time",
        "training.batch_size=2",
    ]
    experiment = Experiment.from_yaml(done.yaml, overrides, tmp_path / "runs")
    with pytest.raises(DataError, match="the valid part of the leave_last_out split has no rows"):
        DimensionSearch(experiment, Promise(budget=100)).run()
    assert not (tmp_path / "runs" / "tiny-search").exists()


def test_searches_are_held_against_controls_and_cost_is_told_in_trainings(done: Done) -> None:
    assert {each.search.partition("-")[0] for each in done.record.verdicts} <= {"optembed", "dnis"}
    assert done.record.verdicts
    assert done.record.cost["full"] == pytest.approx(1.0)
    spent = dict[str, float]()
    for trial in done.record.trials:
        spent[trial.method] = spent.get(trial.method, 0.0) + sum(each.seconds for each in trial.trained)
    unit = spent["full"]
    assert done.record.cost["uniform"] == pytest.approx(spent["uniform"] / unit)
    for search in ("optembed", "dnis"):
        assert done.record.cost[search] > 1.01 * spent[search] / unit, "the search's own seconds stand beside trainings"


def test_a_promise_that_no_plan_keeps_is_an_error_and_the_record_is_there(done: Done) -> None:
    search = DimensionSearch(Experiment.from_yaml(done.yaml, runs=done.runs), Promise(budget=1))
    with pytest.raises(SearchError, match=r"--budget: 1 bytes; expected .* the smallest plan found"):
        search.run()
    record = SearchRecord.model_validate_json((done.runs / "tiny-search" / "search.json").read_bytes())
    assert record.chosen is None
    methods = ("optembed", "dnis", "gradual_pruning", "uniform", "int8", "multiplexed")
    assert set(record.unreachable) == {f"{method}-1" for method in methods}


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("training.strategy=multi_worker", "training.strategy: multi_worker"),
        ("embeddings.tables.id={method: multiplexed, dim: 4, rows: 9}", "nothing that a plan could make smaller"),
    ],
)
def test_what_cannot_be_searched(done: Done, override: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        DimensionSearch(Experiment.from_yaml(done.yaml, [override], done.runs / "other"), Promise(budget=100)).run()
