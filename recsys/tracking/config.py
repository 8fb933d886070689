"""Who is told of a run."""

from __future__ import annotations

from pydantic import Field

from recsys.config.base import Config


class MLflowConfig(Config):
    """An MLflow store, which gets each evaluated run: config, metrics by epoch and in the end, records and report.

    It needs the extra `recsys[mlflow]`.
    """

    uri: str = Field(min_length=1)
    """The tracking URI: `http://HOST:PORT` of a server, or `sqlite:///FILE`."""
    experiment: str = Field("recsys", min_length=1)
    """The experiment's name there; it is made if need be."""


class TrackingConfig(Config):
    """Trackers beside TensorBoard (`training.tensorboard`); no weight and no number depends on them."""

    mlflow: MLflowConfig | None = None
    """Left out, MLflow is not loaded at all."""
