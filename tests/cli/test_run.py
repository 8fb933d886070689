"""`recsys run` and its steps, as a user has them: one YAML file from raw events to recommendations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.cli import main
from recsys.config.digest import digest
from recsys.config.load import load
from recsys.evaluation.record import RunRecord
from recsys.experiment_config import ExperimentConfig
from tests.trained import Trained

Json = Callable[..., dict[str, Any]]
BASELINES = ("popularity", "recent_popularity", "item_knn", "category_in_history")


@pytest.fixture
def for_programs(capsys: pytest.CaptureFixture[str]) -> Json:
    """Runs a command with --json; stdout must be one JSON object and nothing else."""

    def call(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert isinstance(result, dict)
        return result

    return call


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and the moment it was written."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_it_prints(trained_run: Trained) -> None:
    out, err = trained_run.stdout, trained_run.stderr
    assert out.startswith("Test metrics of small (")
    record = RunRecord.read(trained_run.run / "metrics.json")
    metrics = {name: values["recall@10"] for name, values in record.metrics.items()}
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["recall@10"])
    rivals = sorted(BASELINES, key=lambda name: -record.metrics[name]["ndcg@5"])[:3]
    interval = record.ranges["model"]["recall@10"]
    assert row[:3] == ["recall@10", f"{metrics['model']:.4f}", f"{interval.low:.4f}–{interval.high:.4f}"]
    assert row[3:] == [f"{metrics[name]:.4f}" for name in rivals]
    assert max(len(line) for line in out.splitlines() if line.startswith(" ")) <= 80
    assert "The model against baselines and champion, user by user" in out
    assert "ndcg@5 by slice" in out
    wrote = "".join(f"wrote runs/small/{name}\n" for name in ("metrics.json", "bundle/1", "report.html"))
    assert f"{wrote}next: recsys recommend runs/small --user" in out
    lines = [line for line in err.splitlines() if line.startswith(("small", "data:", "epoch"))]
    assert lines[0].startswith("small  run directory runs/small  config ")
    assert lines[1].startswith("data: 500 users, 200 items; ")
    assert [line[:9] for line in lines[2:]] == ["epoch   1", "epoch   2", "epoch   3"]
    assert all("loss" in line and "validation ndcg@10" in line for line in lines[2:])
    assert "Traceback" not in err


def test_what_a_run_directory_holds(trained_run: Trained) -> None:
    run = trained_run.run
    assert names(trained_run.folder) == {"small.yaml", "runs", "cache", "result.json"}
    assert names(trained_run.folder / "runs") == {"small"}
    assert names(run) == {
        "config.yaml",
        "origin.json",
        "cost.json",
        "prepared",
        "checkpoints",
        "logs",
        "metrics.json",
        "evaluation",
        "bundle",
        "inspect",
        "report.html",
    }
    assert names(run / "evaluation") == {*(f"{name}.parquet" for name in ("model", *BASELINES)), "examples.json"}
    assert names(run / "inspect") == {"tables.json"}
    record = RunRecord.read(run / "metrics.json")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{record.metrics['model']['ndcg@5']:.4f}" in page
    for part in ("examples", "tables", "served", "learning", "slices", "card"):
        assert f'<section id="{part}"' in page
    assert (run / "prepared").resolve().parent == (trained_run.cache / "prepared").resolve()
    assert names(run / "prepared") >= {"dataset.json", "items.parquet", "users.parquet", "train", "valid", "test"}
    assert names(run / "bundle") == {"1"}
    assert set(json.loads((run / "cost.json").read_text())) == {"prepare", "train", "evaluate"}
    assert load(run / "config.yaml", ExperimentConfig).config == load(trained_run.config, ExperimentConfig).config


def test_checkpoints_hold_the_last_and_the_best_and_no_leftovers(trained_run: Trained) -> None:
    found = names(trained_run.run / "checkpoints")
    best = {name for name in found if name.startswith("best-")}
    assert {name.split(".")[0] for name in found} == {"checkpoint", "ckpt-3", *(name.split(".")[0] for name in best)}
    assert len(best) == 2, "the index and the data of one set of best weights"
    assert len(found) == 5
    index = next(name for name in best if name.endswith(".index"))
    kept = tf.train.list_variables(str(trained_run.run / "checkpoints" / index.removesuffix(".index")))
    record = RunRecord.read(trained_run.run / "metrics.json")
    size = sum(int(np.prod(shape)) for name, shape in kept if not name.startswith("_CHECKPOINTABLE"))
    assert size == record.counts["table_parameters"] + record.counts["dense_parameters"], "weights, no optimizer slots"


def test_the_record(trained_run: Trained) -> None:
    record = RunRecord.read(trained_run.run / "metrics.json")
    config = load(trained_run.config, ExperimentConfig).config
    assert (record.name, record.seed, record.config_digest) == ("small", 1, digest(config))
    assert set(record.metrics) == {"model", *BASELINES}
    assert all(set(record.metrics["model"]) == set(record.metrics[name]) for name in BASELINES)
    assert {f"recall@{k}" for k in (5, 10, 20)} <= set(record.metrics["model"])
    tested = pq.read_table(trained_run.run / "prepared" / "test", columns=["user_index"])["user_index"].unique()
    assert record.counts["users_evaluated"] == len(tested), "nobody meets an item twice in this world"
    assert record.counts["users_without_relevant"] == 500 - len(tested) > 0
    assert record.counts["users"] == 500
    assert record.counts["items"] == 200
    assert record.counts["table_bytes"] == 4 * record.counts["table_parameters"], "float32"
    assert 16 * (190 + 500) < record.counts["table_parameters"] < 16 * (204 + 504) + 8 * 100, "ids 16 wide, the rest 8"
    assert record.environment.versions["tensorflow"].startswith("2.20")


def test_a_model_of_planted_tastes_beats_popularity(trained_run: Trained) -> None:
    metrics = RunRecord.read(trained_run.run / "metrics.json").metrics
    for metric in ("recall@10", "ndcg@10", "recall@20"):
        assert metrics["model"][metric] > 1.7 * metrics["popularity"][metric]


def test_the_bundle_loads_and_names_the_run(trained_run: Trained) -> None:
    bundle = Bundle.load(trained_run.run)
    assert bundle.folder == trained_run.bundle
    record = RunRecord.read(trained_run.run / "metrics.json")
    assert bundle.manifest.metrics == record.metrics["model"]
    assert (bundle.manifest.config_digest, bundle.manifest.data_digest) == (record.config_digest, record.data_digest)
    assert bundle.manifest.catalogue_size == 200
    assert bundle.manifest.index.recall >= 0.5
    assert bundle.index.size == 200


def test_recommendations_are_new_to_the_user(trained_run: Trained, for_programs: Json) -> None:
    found = for_programs("recommend", trained_run.run, "--user", "7", "-k", "12")
    items = [item["item"] for item in found["items"]]
    scores = [item["score"] for item in found["items"]]
    assert len(set(items)) == 12
    assert scores == sorted(scores, reverse=True)
    assert all(item["title"].startswith(f"Item {item['item']} of category ") for item in found["items"])
    liked = [item["item"] for item in found["liked"]]
    assert liked
    assert not set(items) & set(liked)
    assert found["bundle"] == {"name": "small", "version": 1}


def test_a_second_run_trains_nothing_and_says_so(trained_copy: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    before, record = contents(trained_copy.run / "checkpoints"), RunRecord.read(trained_copy.run / "metrics.json")
    assert main(["run", "small.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "training was finished before; nothing to do" in err
    assert "epoch" not in err
    assert contents(trained_copy.run / "checkpoints") == before
    again = RunRecord.read(trained_copy.run / "metrics.json")
    assert (again.metrics, again.data_digest) == (record.metrics, record.data_digest)
    assert again.created > record.created
    assert "wrote runs/small/bundle/2" in out
    assert names(trained_copy.run / "bundle") == {"1", "2"}


def test_every_step_alone_for_programs(trained_copy: Trained, for_programs: Json) -> None:
    run = trained_copy.run
    record = RunRecord.read(run / "metrics.json")
    prepared = for_programs("prepare", "small.yaml")
    assert set(prepared) == {"path", "digest", "counts"}
    assert prepared["digest"] == record.data_digest
    trained = for_programs("train", "small.yaml")
    assert (trained["path"], trained["epochs"], len(trained["history"])) == ("runs/small", 3, 3)
    losses = [epoch["loss"] for epoch in trained["history"]]
    assert losses == sorted(losses, reverse=True)
    assert for_programs("evaluate", "small.yaml")["metrics"] == record.metrics
    exported = for_programs("export", "small.yaml")
    assert (exported["path"], exported["index"]["promise"]) == ("runs/small/bundle/2", {"recall@10": 0.5})
    assert Bundle.load(run).folder.name == "2"
    whole = for_programs("run", "small.yaml")
    assert (whole["path"], whole["bundle"], whole["metrics"]) == ("runs/small", "runs/small/bundle/3", record.metrics)


def test_the_run_directory_is_enough(
    trained_copy: Trained, for_programs: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the YAML, from another working folder, under another name."""
    record = RunRecord.read(trained_copy.run / "metrics.json")
    trained_copy.config.unlink()
    run = trained_copy.run.rename(tmp_path / "kept")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert for_programs("evaluate", run)["metrics"] == record.metrics
    assert for_programs("export", "../kept")["path"] == "../kept/bundle/2"
    assert names(elsewhere) == set(), "nothing is made elsewhere"
    monkeypatch.chdir(run)
    assert for_programs("evaluate", ".")["metrics"] == record.metrics


def test_the_engine_and_the_devices_may_change_after_the_training(trained_copy: Trained, for_programs: Json) -> None:
    record = RunRecord.read(trained_copy.run / "metrics.json")
    changed = ("data.engine.memory_limit_gib=1.5", "training.strategy=mirrored", "training.steps_per_call=3")
    options = [word for override in changed for word in ("--set", override)]
    found = for_programs("evaluate", trained_copy.run, *options)["metrics"]["model"]
    assert found == pytest.approx(record.metrics["model"], rel=1e-6)
    assert main(["evaluate", str(trained_copy.run), "--set", "training.batch_size=64"]) == 1


def test_cut_offs_and_the_index_may_change_after_the_training(trained_copy: Trained, for_programs: Json) -> None:
    before = contents(trained_copy.run / "checkpoints")
    record = RunRecord.read(trained_copy.run / "metrics.json").metrics["model"]
    found = for_programs("evaluate", trained_copy.run, "--set", "evaluation.ks=[1, 10]")["metrics"]["model"]
    assert found["recall@10"] == record["recall@10"]
    assert "recall@1" in found
    assert "recall@5" not in found
    path = for_programs("export", trained_copy.run, "--set", "retrieval.index={kind: exact}")["path"]
    assert Bundle.load(path).manifest.index.kind == "exact"
    assert contents(trained_copy.run / "checkpoints") == before
