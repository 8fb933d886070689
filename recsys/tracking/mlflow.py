"""A run in MLflow: made when it is first evaluated, from its record; later evaluations of the same config go on in it.

Metrics of epochs come from the record too, so a training that was killed and resumed is told once and whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from recsys.config.base import Config
from recsys.errors import InstallError, TrackingError
from recsys.files import write_text
from recsys.tracking.config import MLflowConfig

if TYPE_CHECKING:
    from recsys.evaluation.record import RunRecord

HANDLE = "mlflow.json"
"""In the run directory: which MLflow run it is."""
AT_ONCE = 100
"""Parameters in one request at most, by MLflow's own limit; metrics may be ten times as many."""
LONGEST = 500
"""Characters of a parameter at most, which every MLflow store takes."""


class Handle(Config):
    """`mlflow.json`."""

    format: Literal[1] = 1
    uri: str
    experiment: str
    config_digest: str
    run_id: str


def check_mlflow() -> None:
    """Looks whether MLflow can be loaded, before hours are spent.

    Raises:
        InstallError: it cannot.
    """
    _client_class()


def log_evaluation(config: MLflowConfig, folder: Path, record: RunRecord, values: Mapping[str, Any]) -> None:
    """Tells MLflow of an evaluated run.

    Args:
        config: where it is kept.
        folder: the run directory.
        record: of the run.
        values: the experiment's config, plain.

    Raises:
        InstallError: MLflow is not installed.
        TrackingError: the store cannot be reached, or refuses.
    """
    make_client = _client_class()
    try:
        client = make_client(tracking_uri=config.uri)  # a store in a file is opened here
        handle = _known(config, folder, record, client) or _made(config, folder, record, values, client)
        for name, metrics in record.metrics.items():
            for metric, value in metrics.items():
                client.log_metric(handle.run_id, metric_name(name, metric), value)
        client.set_tag(handle.run_id, "recsys.warnings", "; ".join(record.warnings) or "none")
        for file in ("metrics.json", "config.yaml"):
            client.log_artifact(handle.run_id, str(folder / file))
        client.set_terminated(handle.run_id)
    except _failures() as error:
        raise _refused(config, error) from error


def log_file(config: MLflowConfig, folder: Path, path: Path) -> None:
    """Puts a file beside a run that MLflow has been told of.

    Raises:
        InstallError: MLflow is not installed.
        TrackingError: the store cannot be reached, or refuses.
    """
    handle = _handle(folder)
    if handle is None:
        return
    try:
        _client_class()(tracking_uri=config.uri).log_artifact(handle.run_id, str(path))
    except _failures() as error:
        raise _refused(config, error) from error


def metric_name(owner: str, metric: str) -> str:
    """As MLflow allows it.

    >>> metric_name("model", "ndcg@10")
    'model/ndcg_at_10'
    """
    return f"{owner}/{metric}".replace("@", "_at_")


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a config, with their values as JSON.

    >>> dict(flat({"a": {"b": 1, "c": None}, "d": [1, 2]}))
    {'a.b': '1', 'a.c': 'null', 'd': '[1, 2]'}
    """
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, ensure_ascii=False)[:LONGEST]


def _known(config: MLflowConfig, folder: Path, record: RunRecord, client: Any) -> Handle | None:
    """The run that an earlier evaluation of this config made there, if it still stands."""
    handle = _handle(folder)
    if handle is None or handle != _asked(config, record, handle.run_id):
        return None
    try:
        client.get_run(handle.run_id)
    except _failures():  # somebody has removed it there
        return None
    return handle


def _made(config: MLflowConfig, folder: Path, record: RunRecord, values: Mapping[str, Any], client: Any) -> Handle:
    from mlflow.entities import Metric, Param

    tags = {
        "recsys.config_digest": record.config_digest,
        "recsys.data_digest": record.data_digest,
        "recsys.version": record.environment.versions.get("recsys", ""),
    }
    run_id = client.create_run(_experiment(config, client), run_name=record.name, tags=tags).info.run_id
    parameters = [Param(key, value) for key, value in flat(values)]
    for start in range(0, len(parameters), AT_ONCE):
        client.log_batch(run_id, params=parameters[start : start + AT_ONCE])
    moment = int(record.created.timestamp() * 1000)
    for number, epoch in enumerate(record.history, 1):
        logs = [Metric(metric_name("epoch", name), value, moment, number) for name, value in epoch.items()]
        client.log_batch(run_id, metrics=logs)
    handle = _asked(config, record, run_id)
    write_text(folder / HANDLE, handle.model_dump_json() + "\n")
    return handle


def _asked(config: MLflowConfig, record: RunRecord, run_id: str) -> Handle:
    return Handle(uri=config.uri, experiment=config.experiment, config_digest=record.config_digest, run_id=run_id)


def _experiment(config: MLflowConfig, client: Any) -> str:
    found = client.get_experiment_by_name(config.experiment)
    return found.experiment_id if found is not None else client.create_experiment(config.experiment)


def _handle(folder: Path) -> Handle | None:
    try:
        return Handle.model_validate_json((folder / HANDLE).read_bytes())
    except (OSError, ValidationError):
        return None


def _client_class() -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        cure = "pip install 'recsys[mlflow]', or remove tracking.mlflow"
        raise InstallError("tracking.mlflow", f"MLflow cannot be loaded ({error})", "MLflow", cure) from error
    return MlflowClient


def _failures() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _refused(config: MLflowConfig, error: Exception) -> TrackingError:
    found = " ".join(str(error).split())[:200]
    cure = "correct it, start the server, or remove tracking.mlflow"
    return TrackingError("tracking.mlflow.uri", f"{config.uri}: {found}", "an MLflow store", cure)
