"""A bundle behind HTTP: an ASGI application, all in one process."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from recsys.bundle.bundle import Bundle
from serving.about import State
from serving.config import ServingConfig
from serving.engine.engine import LocalEngine
from serving.engine.methods import methods_of
from serving.pipeline.pipeline import Pipeline
from serving.web.application import web_app
from serving.web.metrics import Metrics


def create_app(bundle: Bundle | Path | str, config: ServingConfig | None = None) -> FastAPI:
    """The ASGI application of a bundle (or of the bundle at a path, which is verified), all in this process.

    Raises:
        BundleError: the bundle is missing, incomplete, altered, or made for other versions.
        ConfigError: the file of keys cannot be used.
    """
    config, metrics = config or ServingConfig(), Metrics()
    pipeline = Pipeline(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), config, metrics.logged)
    from serving.tf_serving.servables import Servables  # after what is wrong with the bundle is told: loads TensorFlow

    engine = LocalEngine(methods_of(pipeline, Servables(pipeline.bundle), metrics).answer, config.threads)
    return web_app(engine, config, metrics, lambda: State(bundle=pipeline.name), pipeline.close)
