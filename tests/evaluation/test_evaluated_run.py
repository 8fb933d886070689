"""What the evaluation of a trained run leaves, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.data.prepared import Prepared
from recsys.evaluation import RunRecord
from recsys.evaluation.evidence import Measured, evidence_path
from tests.trained import Trained


@pytest.fixture(scope="module")
def record(trained_run: Trained) -> RunRecord:
    return RunRecord.read(trained_run.run / "metrics.json")


@pytest.fixture(scope="module")
def model(trained_run: Trained) -> Measured:
    return Measured.read(evidence_path(trained_run.run, "model"))


def test_means_over_users_are_the_metrics(record: RunRecord, trained_run: Trained) -> None:
    for name, metrics in record.metrics.items():
        whole = Measured.read(evidence_path(trained_run.run, name)).whole
        assert len(whole.users) == record.counts["users_evaluated"]
        assert list(whole.users) == sorted(whole.users)
        for metric in whole.values:
            found = record.ranges[name][metric]
            assert found.value == pytest.approx(metrics[metric])
            assert found.low <= found.value <= found.high
        assert metrics.keys() - whole.values.keys() == {
            f"{metric}@{k}" for metric in ("coverage", "gini", "popularity_lift") for k in (5, 10, 20)
        }


def test_the_logs_of_every_epoch_are_there(record: RunRecord) -> None:
    assert len(record.history) > 0
    for epoch in record.history:
        assert {"loss", "val_ndcg@10"} <= epoch.keys()
    losses = [epoch["loss"] for epoch in record.history]
    assert len(set(losses)) == len(losses)


def test_slices_divide_the_users(record: RunRecord, model: Measured) -> None:
    by = {name: [each for each in record.slices if each.by == name] for name in {each.by for each in record.slices}}
    assert set(by) == {"item_frequency", "user_activity", "returning", "age", "device"}
    for name in ("user_activity", "returning", "age", "device"):
        assert sum(each.users for each in by[name]) == record.counts["users_evaluated"]
    for each in record.slices:
        assert each.small == (each.users < 100)
        assert each.metrics.keys() == record.metrics.keys()
        evidence = model.slices[each.by, each.name]
        assert len(evidence.users) == each.users
        if each.users > 1:
            assert each.metrics["model"]["ndcg@10"].value == pytest.approx(evidence.values["ndcg@10"].mean())
    (returning,) = by["returning"]
    assert returning.metrics["model"]["recall@10"].value == pytest.approx(record.metrics["model"]["recall@10"])


def test_a_device_s_slice_is_of_the_queries_with_it(trained_run: Trained, model: Measured) -> None:
    prepared = Prepared(trained_run.run / "prepared")
    held_out = prepared.held_out("test")
    devices = dict(enumerate(prepared.vocabulary("device"), start=2))
    names = prepared.users["user"].to_numpy()[held_out.user_index]
    for device_id, device in devices.items():
        expected = set(names[held_out.context["device"] == device_id]) & set(model.whole.users)
        assert set(model.slices["device", str(device)].users) == expected


def test_item_slices_are_of_relevant_items(trained_run: Trained, model: Measured) -> None:
    """One test item a user: a user is in exactly one of the slices, with the recall of the whole."""
    whole = dict(zip(model.whole.users, model.whole.values["recall@10"], strict=True))
    slices = [each for (by, _), each in model.slices.items() if by == "item_frequency"]
    assert sorted(user for each in slices for user in each.users) == sorted(whole)
    for each in slices:
        assert each.values["recall@10"].tolist() == [whole[user] for user in each.users]


def test_the_model_is_held_to_every_baseline(record: RunRecord) -> None:
    assert [each.against for each in record.differences if each.metric == "ndcg@10"] == [
        name for name in record.metrics if name != "model"
    ]
    for each in record.differences:
        assert each.run == "model"
        assert each.difference == pytest.approx(
            record.metrics["model"][each.metric] - record.metrics[each.against][each.metric]
        )
    assert next(each for each in record.differences if each.against == "popularity").real


def test_a_champion_stands_beside_the_model(trained_copy: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run, but its numbers made worse where they are stored."""
    champion = Path("runs/before")
    shutil.copytree("runs/small", champion, symlinks=True)
    stored = evidence_path(champion, "model")
    table = pq.read_table(stored)
    place = table.column_names.index("value:ndcg@10")
    worse = pa.array(np.maximum(table["value:ndcg@10"].to_numpy() - 0.05, 0.0))
    pq.write_table(table.set_column(place, "value:ndcg@10", worse), stored)

    assert main(["evaluate", "runs/small", "--set", f"evaluation.champion={champion.resolve()}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["champion"]["recall@10"] == found["metrics"]["model"]["recall@10"]
    against = {each["metric"]: each for each in found["differences"] if each["against"] == "champion"}
    assert against["ndcg@10"]["real"]
    assert against["ndcg@10"]["difference"] > 0
    assert not against["recall@10"]["real"]
    assert against["recall@10"]["difference"] == 0
    assert not evidence_path(Path("runs/small"), "champion").exists()


def test_a_champion_must_be_evaluated_on_the_same_data(
    trained_copy: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Path("runs/small/metrics.json").read_bytes()
    assert main(["evaluate", "runs/small", "--set", "evaluation.champion=runs/none"]) == 1
    assert "runs/none/metrics.json: cannot be read" in capsys.readouterr().err
    other = Path("runs/other")
    shutil.copytree("runs/small", other, symlinks=True)
    measured = Measured.read(evidence_path(other, "model"))
    Measured("e" * 64, measured.part, measured.whole).write(evidence_path(other, "model"))
    assert main(["evaluate", "runs/small", "--set", f"evaluation.champion={other.resolve()}"]) == 1
    assert "was measured on different data" in capsys.readouterr().err
    assert Path("runs/small/metrics.json").read_bytes() == stored


def test_data_that_tell_of_the_future_are_refused(trained_copy: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The items' training counts know the test part."""
    stored = Path("runs/small/metrics.json").read_bytes()
    (prepared,) = (trained_copy.cache / "prepared").iterdir()
    path = prepared / "items.parquet"
    items, events = pq.read_table(path), pq.read_table(path.parent / "events")
    counts = np.bincount(events["item_index"].to_numpy(), minlength=len(items))
    place = items.column_names.index("train_count")
    pq.write_table(items.set_column(place, "train_count", pa.array(counts.astype(np.int64))), path)
    for command in ("train", "evaluate"):
        assert main([command, "runs/small"]) == 1
        error = capsys.readouterr().err
        assert "train_count" in error
        assert "Traceback" not in error
    assert Path("runs/small/metrics.json").read_bytes() == stored

    assert main(["evaluate", "runs/small", "--set", "evaluation.leakage=warn"]) == 0
    assert capsys.readouterr().out.startswith("warning: ")
    assert "train_count" in " ".join(RunRecord.read(Path("runs/small/metrics.json")).warnings)
