"""One experiment at several moments of the past: which events its windows hold, how it resumes, what it pools."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from recsys.backtest import Backtest
from recsys.data.config import SimulatedSource
from recsys.data.prepared import Prepared
from recsys.data.simulator import simulated
from recsys.errors import ConfigError, DataError
from recsys.evaluation.backtest_record import BacktestRecord
from recsys.evaluation.evidence import Measured
from recsys.evaluation.leakage import find_leaks
from recsys.evaluation.record import RunRecord
from recsys.experiment import Experiment

WORLD = {"users": 150, "items": 60, "events": 3000, "seed": 3, "item_turnover": 0.1, "cold_items": 0, "repeats": True}
CONFIG = """\
name: tiny
data:
  source: {kind: files, events: events.parquet}
  split: {kind: temporal, valid: 0.1, test: 0.15}
schema:
  user: user_id
  item: item_id
  timestamp: timestamp
  features:
    item_id: {kind: categorical, role: item}
    history: {kind: sequence, of: item_id, max_length: 5}
embeddings:
  tables: {item: {dim: 4}}
  features: {item_id: {table: item}, history: {table: item}}
model: {kind: two_tower, query: {output_dim: 4}, item: {output_dim: 4}}
training: {batch_size: 256, epochs: 1, early_stopping: null, tensorboard: false}
evaluation: {ks: [5, 10], slices: [{kind: returning}]}
"""
TEST = 0.15


def write_tiny(folder: Path) -> Path:
    """A log to which every week brings new items, and the YAML of an experiment on it, `tiny.yaml`."""
    (events,) = simulated(SimulatedSource.model_validate({"kind": "simulated", **WORLD})).events
    shutil.copy(events, folder / "events.parquet")
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder / "tiny.yaml"


@dataclass(frozen=True)
class Done:
    """A backtest of two windows that was cut off in the second one, and then run again."""

    yaml: Path
    runs: Path
    cut_off: dict[str, bytes]
    """The files of both windows at that moment."""
    record: BacktestRecord

    def experiment(self, *overrides: str) -> Experiment:
        return Experiment.from_yaml(self.yaml, overrides, self.runs)

    def log(self) -> dict[str, NDArray]:
        table = pq.read_table(self.yaml.with_name("events.parquet"))
        return {name: table[name].to_numpy() for name in ("user_id", "item_id", "timestamp")}

    def window(self, number: int) -> Path:
        return self.runs / f"tiny-window-{number}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("backtest")
    yaml, runs = write_tiny(folder), folder / "runs"

    def cut_off(window: Experiment) -> None:
        window.train()
        if window.config.name == "tiny-window-2":
            raise KeyboardInterrupt
        window.evaluate()

    with pytest.raises(KeyboardInterrupt):
        Backtest(Experiment.from_yaml(yaml, runs=runs), 2).run(cut_off)
    assert not (runs / "tiny-backtest").exists()
    files = {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    return Done(yaml, runs, files, Backtest(Experiment.from_yaml(yaml, runs=runs), 2).run())


def test_the_windows_are_those_of_the_log(done: Done) -> None:
    times = np.sort(done.log()["timestamp"]).astype(np.int64)
    count = len(times)
    first, second = (times[count - round(count * share)] for share in (2 * TEST, TEST))
    assert [(each.name, each.first) for each in done.record.windows] == [
        ("tiny-window-1", first),
        ("tiny-window-2", second),
    ]
    assert done.record.windows[0].last == times[times < second].max()
    assert done.record.windows[1].last == times[-1]


def test_a_window_does_not_know_what_comes_after_it(done: Done) -> None:
    events, second = done.log(), done.record.windows[1].first
    known = events["timestamp"].astype(np.int64) < second
    earlier, whole = Prepared(done.window(1) / "prepared"), Prepared(done.window(2) / "prepared")
    assert earlier.info.counts.held_back == (~known).sum()
    assert set(earlier.users["user"].to_pylist()) == {str(user) for user in events["user_id"][known]}
    assert whole.info.counts.held_back == 0
    assert set(earlier.items["item"].to_pylist()) == {str(item) for item in events["item_id"][known]}
    assert earlier.info.counts.items < whole.info.counts.items
    for prepared in (earlier, whole):
        assert find_leaks(prepared) == []


def test_every_window_is_an_ordinary_run(done: Done, tmp_path: Path) -> None:
    """The same to the last bit, whatever was trained in the process before, and although it was cut off."""
    name = "name=tiny-window-2"
    alone = Experiment.from_yaml(done.yaml, [name], tmp_path)
    alone.train()
    record = RunRecord.read(done.window(2) / "metrics.json")
    assert alone.evaluate().metrics == record.metrics
    assert alone.digest == record.config_digest
    assert (
        Experiment.from_yaml(done.window(1)).config.data.split
        == done.experiment("data.split.held_back=0.15").config.data.split
    )


def test_what_is_done_is_not_done_again(done: Done) -> None:
    before = {name: content for name, content in done.cut_off.items() if name.startswith("tiny-window-1/")}
    del before["tiny-window-1/cost.json"]  # its data were looked up once more
    assert "tiny-window-1/metrics.json" in before
    assert before == {name: (done.runs / name).read_bytes() for name in before}
    weights = [name for name in done.cut_off if "window-2/checkpoints/" in name]
    assert weights
    assert all((done.runs / name).read_bytes() == done.cut_off[name] for name in weights), "it was not trained again"

    asked: list[str] = []

    def cut_off(window: Experiment) -> None:
        asked.append(window.config.name)
        raise KeyboardInterrupt

    again = Backtest(done.experiment(), 2).run(cut_off)
    assert asked == []
    assert again.model_copy(update={"created": done.record.created}) == done.record
    with pytest.raises(KeyboardInterrupt):  # another evaluation of the same weights
        Backtest(done.experiment("evaluation.ks=[5, 10, 20]"), 2).run(cut_off)
    assert asked == ["tiny-window-1"]


def test_a_user_is_the_mean_over_their_windows(done: Done) -> None:
    one, two, both = (
        Measured.read(folder / "evaluation" / "model.parquet").whole
        for folder in (done.window(1), done.window(2), done.runs / "tiny-backtest")
    )
    shared, only = sorted(set(one.users) & set(two.users))[0], sorted(set(one.users) - set(two.users))[0]
    in_one, in_two = (dict(zip(each.users, each.values["ndcg@10"], strict=True)) for each in (one, two))
    found = dict(zip(both.users, zip(both.values["ndcg@10"], both.weight("ndcg@10"), strict=True), strict=True))
    assert found[shared] == (pytest.approx((in_one[shared] + in_two[shared]) / 2), 2)
    assert found[only] == (pytest.approx(in_one[only]), 1)
    pooled = done.record.ranges["model"]["ndcg@10"]
    assert pooled.value == pytest.approx(np.concatenate([one.values["ndcg@10"], two.values["ndcg@10"]]).mean())
    assert pooled.low < pooled.value < pooled.high
    assert pooled.users == len(set(one.users) | set(two.users))
    assert {"model", "popularity"} <= done.record.ranges.keys()
    assert {each.against for each in done.record.differences} == done.record.ranges.keys() - {"model"}
    assert [each.users for each in done.record.windows] == [len(one.users), len(two.users)]
    written = BacktestRecord.model_validate_json((done.runs / "tiny-backtest" / "backtest.json").read_bytes())
    assert written.model_copy(update={"created": done.record.created}) == done.record


@pytest.mark.parametrize(
    ("overrides", "windows", "texts"),
    [
        (["data.split={kind: leave_last_out}"], 2, ["data.split.kind", "leave_last_out", "temporal"]),
        (["data.split.held_back=0.1"], 2, ["data.split.held_back: 0.1", "leave it out"]),
        ([], 6, ["--windows: 6 windows, which test 0.9 of the events and validate 0.1", "fewer windows"]),
        ([], 1, ["--windows: 1", "at least 2"]),
        (["training.warm_start=runs/old"], 2, ["training.warm_start: runs/old", "--warm-start"]),
        (["training.strategy=multi_worker"], 2, ["training.strategy", "one process"]),
        (["evaluation.champion=runs/old"], 2, ["evaluation.champion", "recsys compare"]),
    ],
)
def test_what_cannot_be_taken_back_in_time(
    tmp_path: Path, overrides: list[str], windows: int, texts: list[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    experiment = Experiment.from_yaml(tmp_path / "tiny.yaml", overrides, tmp_path / "runs")
    with pytest.raises(ConfigError) as caught:
        Backtest(experiment, windows)
    (problem,) = caught.value.problems
    assert all(text in str(problem) for text in texts), problem


def test_too_few_events_for_so_many_windows(tmp_path: Path) -> None:
    """Half the log is left to train on; but the oldest window's validation shares its moment with its test part."""
    times = [1, 2, 3, 3, 3, 3, 3, 8, 9, 10]
    rows = "".join(f"u{n % 2},i{n},{time}\n" for n, time in enumerate(times))
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp\n{rows}")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    overrides = ["data.source={kind: files, events: log.csv}", "data.split={kind: temporal, valid: 0.1, test: 0.1}"]
    experiment = Experiment.from_yaml(tmp_path / "tiny.yaml", overrides, tmp_path / "runs")
    with pytest.raises(
        DataError, match=r"tiny-window-1 \(.*log\.csv\): the valid part .* has no rows.*fewer --windows"
    ):
        Backtest(experiment, 4).run(lambda window: pytest.fail("nothing is to be trained"))
    Backtest(experiment, 3).prepare()
