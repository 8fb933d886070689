"""Runs in a real MLflow store; and what becomes of a wish for MLflow where there is none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InstallError, TrackingError
from recsys.tracking.config import MLflowConfig
from recsys.tracking.mlflow import HANDLE, LONGEST, check_mlflow, flat, log_evaluation, log_file
from tests.conftest import Require
from tests.report.conftest import DATA, DIGEST, record

VALUES = {"name": "small", "training": {"epochs": 3}, "many": {f"key{n}": n for n in range(250)}}


@pytest.fixture
def store(tmp_path: Path, require: Require) -> MLflowConfig:
    require(importlib.util.find_spec("mlflow"), "needs MLflow (make environment EXTRAS=mlflow)")
    return MLflowConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="films")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # a store without a server keeps files in the working folder
    for name in ("metrics.json", "config.yaml", "report.html"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.system
def test_a_run_is_told_once_and_whole(store: MLflowConfig, run: Path) -> None:
    from mlflow.tracking import MlflowClient

    log_evaluation(store, run, record(warnings=("a leak",)), VALUES)
    log_file(store, run, run / "report.html")
    client: Any = MlflowClient(tracking_uri=store.uri)
    films = client.get_experiment_by_name("films").experiment_id
    (found,) = client.search_runs([films])
    assert (found.info.run_name, found.info.status) == ("small", "FINISHED")
    assert found.data.metrics["model/ndcg_at_10"] == 0.25
    assert found.data.metrics["popularity/recall_at_10"] == 0.25
    assert len(found.data.params) == 252, "more than one request may hold"
    assert (found.data.params["training.epochs"], found.data.params["name"]) == ("3", '"small"')
    assert found.data.tags["recsys.config_digest"] == DIGEST
    assert found.data.tags["recsys.data_digest"] == DATA
    assert found.data.tags["recsys.warnings"] == "a leak"
    epochs = client.get_metric_history(found.info.run_id, "epoch/val_ndcg_at_10")
    assert [(each.step, each.value) for each in epochs] == [(1, 0.1), (2, 0.3), (3, 0.2)]
    files = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert files == {"metrics.json", "config.yaml", "report.html"}

    better = record(metrics={"model": {"ndcg@10": 0.5}})
    log_evaluation(store, run, better, VALUES)
    (again,) = client.search_runs([films])
    assert again.info.run_id == found.info.run_id, "the same config goes on in its run"
    assert again.data.metrics["model/ndcg_at_10"] == 0.5
    assert len(client.get_metric_history(found.info.run_id, "epoch/loss")) == 3, "epochs are not told twice"

    log_evaluation(store, run, record(config_digest="e" * 64), VALUES)
    assert len(client.search_runs([films])) == 2, "another config has a run of its own"
    client.delete_run(found.info.run_id)


@pytest.mark.system
def test_a_store_that_refuses_is_said(store: MLflowConfig, run: Path) -> None:
    nowhere = store.model_copy(update={"uri": "sqlite:////proc/none/mlflow.db"})
    with pytest.raises(TrackingError, match=r"tracking\.mlflow\.uri: sqlite:////proc/none/mlflow\.db: "):
        log_evaluation(nowhere, run, record(), VALUES)
    assert not (run / HANDLE).exists()


def test_without_mlflow_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "mlflow.tracking", raising=False)
    with pytest.raises(InstallError, match=r"tracking\.mlflow: .*pip install 'recsys\[mlflow\]'"):
        check_mlflow()


def test_a_file_for_a_run_that_nobody_was_told_of_stays_at_home(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    log_file(MLflowConfig(uri="http://127.0.0.1:1"), run, run / "report.html")


def test_parameters_are_not_too_long() -> None:
    (found,) = flat({"a": "x" * 1000})
    assert found[0] == "a"
    assert len(found[1]) == LONGEST
