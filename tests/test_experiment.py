"""The Python API of an experiment, whole: both models, seeds, whose a run directory is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import recsys
from recsys.bundle import Bundle
from recsys.data.config import SimulatedSource
from recsys.data.simulator import simulate
from recsys.errors import ConfigError, RecsysError, TrainingError
from recsys.evaluation.evidence import Evidence, Measured
from recsys.evaluation.model import Evaluated
from recsys.evaluation.record import RunRecord
from tests.trained import CONFIG, Trained

RANKER = (
    "name=ranker",
    "data.negatives={column: rating, at_most: 2}",
    "data.positives.at_least=4",
    "model={kind: ranker, mlp: {hidden: [32]}}",
)


@pytest.fixture
def yaml_file(trained_copy: Trained) -> Path:
    """The shared run's YAML, with its prepared data in the cache."""
    return trained_copy.config


def refused(call: object, kind: type[RecsysError]) -> str:
    with pytest.raises(kind) as caught:
        call()  # type: ignore[operator]
    (problem,) = caught.value.problems
    return str(problem)


def test_the_api_gives_the_numbers_of_the_command_line(trained_run: Trained, yaml_file: Path, tmp_path: Path) -> None:
    """In another process and folder: the same seed gives the same metrics, to the last bit."""
    experiment = recsys.Experiment.from_yaml(yaml_file, runs=tmp_path / "elsewhere")
    assert experiment.prepare().path.name == (trained_run.run / "prepared").resolve().name
    position = experiment.train()
    assert (position.epoch, position.finished) == (3, True)
    record = experiment.evaluate()
    shared = RunRecord.read(trained_run.run / "metrics.json")
    assert record.metrics == shared.metrics
    assert (record.config_digest, record.data_digest) == (shared.config_digest, shared.data_digest)
    assert RunRecord.read(tmp_path / "elsewhere" / "small" / "metrics.json") == record
    assert record.cost.seconds.keys() == {"prepare", "train", "evaluate"}
    assert experiment.export() == tmp_path / "elsewhere" / "small" / "bundle" / "1"
    bundle = Bundle.load(experiment.folder)
    np.testing.assert_array_equal(bundle.index.vectors, Bundle.load(trained_run.run).index.vectors)


def test_another_seed_gives_other_numbers(trained_run: Trained, yaml_file: Path, tmp_path: Path) -> None:
    def first_loss(seed: int, runs: str) -> float:
        overrides = [f"seed={seed}", "training.epochs=1", "training.early_stopping=null"]
        return recsys.Experiment.from_yaml(yaml_file, overrides, tmp_path / runs).train().history[0]["loss"]

    same, other = first_loss(1, "a"), first_loss(2, "b")
    shared = next(line for line in trained_run.stderr.splitlines() if line.startswith("epoch   1"))
    assert f"loss {same:.4f} " in shared
    assert not math.isclose(same, other, rel_tol=1e-5)


def test_a_ranker_end_to_end(yaml_file: Path, tmp_path: Path) -> None:
    experiment = recsys.Experiment.from_yaml(yaml_file, RANKER, tmp_path / "runs")
    assert experiment.monitor == "auc"
    bundle = experiment.run()
    run = tmp_path / "runs" / "ranker"
    record = RunRecord.read(run / "metrics.json")
    model, constant = record.metrics["model"], record.metrics["base_rate"]
    assert model["auc"] > 0.65, "liked and disliked items are told apart"
    assert constant["auc"] == 0.5
    assert model["logloss"] < constant["logloss"]
    assert model["base_rate"] == constant["base_rate"] > 0.5
    assert record.counts["examples_evaluated"] == record.counts["test"]
    assert bundle == run / "bundle" / "1"
    loaded = Bundle.load(run)
    assert loaded.manifest.metrics == model
    (score,) = loaded.score([{}])  # nothing is known of the user, nor of the item
    assert 0 < score < 1


def test_paths_of_data_are_relative_to_the_yaml_also_from_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir(parents=True)
    simulate(SimulatedSource(kind="simulated", users=60, items=40, events=900), project / "data")
    plain = yaml.safe_load(CONFIG)
    plain["data"]["source"] = {"kind": "files"} | {n: f"data/{n}.parquet" for n in ("events", "items", "users")}
    (project / "configs").mkdir()
    (project / "configs" / "mine.yaml").write_text(yaml.safe_dump(plain).replace("data/", "../data/"))
    monkeypatch.chdir(elsewhere)
    made = recsys.Experiment.from_yaml("../project/configs/mine.yaml").prepare()
    monkeypatch.chdir(project)
    again = recsys.Experiment.from_yaml("../elsewhere/runs/small")
    assert again.prepare().path == made.path
    assert again.folder == Path("../elsewhere/runs/small")
    assert not (project / "runs").exists()


def test_a_run_directory_belongs_to_the_config_that_trained_in_it(trained_copy: Trained) -> None:
    other = recsys.Experiment.from_yaml("small.yaml", ["seed=2"])
    steps = (other.prepare, other.train, other.evaluate, other.export)
    for step in steps:
        message = refused(step, TrainingError)
        assert message.startswith("runs/small: the run of another configuration (training digest ")
        found, expected = message.split("training digest ")[1].split(")")[0], message.split("expected ")[1][:12]
        assert found == json.loads((trained_copy.run / "origin.json").read_text())["training_digest"][:12]
        assert len(found) == len(expected) == 12
        assert found != expected
        assert message.endswith("choose another `name`, or remove the folder")
    assert "seed: 1" in (trained_copy.run / "config.yaml").read_text()


def test_a_trained_run_keeps_to_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files have changed under a trained model: no step takes its vectors for those of other items."""
    monkeypatch.chdir(tmp_path)
    plain = yaml.safe_load(CONFIG)
    plain["data"]["source"] = {"kind": "files"} | {n: f"data/{n}.parquet" for n in ("events", "items", "users")}
    plain["training"] = {"batch_size": 64, "epochs": 1}
    Path("mine.yaml").write_text(yaml.safe_dump(plain))
    for seed in (0, 1):
        simulate(
            SimulatedSource(kind="simulated", users=60, items=40, events=900, seed=seed), tmp_path / f"world{seed}"
        )
    Path("data").symlink_to("world0")
    recsys.Experiment.from_yaml("mine.yaml").train()
    Path("data").unlink()
    Path("data").symlink_to("world1")
    for step in ("prepare", "train", "evaluate", "export"):
        message = refused(getattr(recsys.Experiment.from_yaml("mine.yaml"), step), TrainingError)
        assert message.startswith("runs/small: trained on other data (digest ")
        assert "put the old files back, choose another `name`, or remove the folder" in message
    Path("data").unlink()
    Path("data").symlink_to("world0")
    assert recsys.Experiment.from_yaml("mine.yaml").evaluate().metrics["model"]


def test_before_the_training_a_config_may_be_mended_under_its_name(yaml_file: Path, tmp_path: Path) -> None:
    """A mistake that shows only in `train` leaves a run directory that does not stand in the way of the cure."""
    runs = tmp_path / "runs"
    message = refused(recsys.Experiment.from_yaml(yaml_file, ["training.batch_size=100000"], runs).train, RecsysError)
    assert "lower training.batch_size" in message
    recsys.Experiment.from_yaml(yaml_file, ["training.batch_size=64"], runs).prepare()
    assert "batch_size: 64" in (runs / "small" / "config.yaml").read_text()
    assert recsys.Experiment.from_yaml(runs / "small").config.training.batch_size == 64


def test_what_is_not_trained_is_not_evaluated_and_leaves_no_trace(yaml_file: Path, tmp_path: Path) -> None:
    experiment = recsys.Experiment.from_yaml(yaml_file, runs=tmp_path / "runs")
    for step in (experiment.evaluate, experiment.export):
        message = refused(step, TrainingError)
        assert message.startswith(f"{tmp_path}/runs/small: no trained model")
        assert "recsys train" in message
    assert not (tmp_path / "runs").exists()


def test_a_training_that_was_cut_off_is_not_evaluated(yaml_file: Path, tmp_path: Path) -> None:
    from recsys._compat import keras

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    experiment = recsys.Experiment.from_yaml(yaml_file, runs=tmp_path / "runs")
    experiment.add_callback(PowerCut())
    with pytest.raises(KeyboardInterrupt):
        experiment.train()
    later = recsys.Experiment.from_yaml(tmp_path / "runs" / "small")
    for step in (later.evaluate, later.export):
        message = refused(step, TrainingError)
        assert "training stopped in epoch 2; expected a finished training; recsys train goes on" in message
    assert not (tmp_path / "runs" / "small" / "metrics.json").exists()
    assert not (tmp_path / "runs" / "small" / "bundle").exists()


def test_a_folder_that_is_no_run_directory(tmp_path: Path) -> None:
    message = refused(lambda: recsys.Experiment.from_yaml(tmp_path), ConfigError)
    assert message.startswith(f"{tmp_path}: no run directory")


def test_the_best_weights_are_evaluated_and_exported(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation by a script: the first epoch is best. A later process finds the same weights."""
    seen: dict[str, list[Any]] = {"valid": [], "test": []}
    script = iter([0.9, 0.1])

    def evaluate(
        model: Any, prepared: object, part: str, config: object, *, validation: bool = False, served: object = None
    ) -> Evaluated:
        assert validation is (served is None) is (part == "valid"), "the test part as it would be served"
        seen[part].append([variable.numpy() for variable in model.trainable_variables])
        value = next(script) if part == "valid" else 0.5
        one = Evidence(np.array(["a", "b"]), {"ndcg@10": np.array([value, value])})
        return Evaluated({"model": {"ndcg@10": value}}, {}, {"model": Measured("d" * 64, part, one)})

    monkeypatch.setattr("recsys.evaluation.evaluate_model", evaluate)
    experiment = recsys.Experiment.from_yaml(yaml_file, ["training.epochs=2"], tmp_path / "runs")
    position = experiment.train()
    assert [logs["val_ndcg@10"] for logs in position.history] == [0.9, 0.1]
    experiment.evaluate()
    recsys.Experiment.from_yaml(tmp_path / "runs" / "small").evaluate()
    first, second = seen["valid"]
    assert not np.array_equal(first[0], second[0])
    for weights in seen["test"]:
        for found, expected in zip(weights, first, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert len(seen["test"]) == 2
