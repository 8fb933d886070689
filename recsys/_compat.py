"""The one place that loads legacy Keras, TFRS and ScaNN, and knows which versions fit each other."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import recsys  # noqa: F401  (sets TF_USE_LEGACY_KERAS before TensorFlow is loaded)
from recsys.errors import InstallError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf  # noqa: E402
import tensorflow_recommenders as tfrs  # noqa: E402

keras = tf.keras

REQUIRED = {"tensorflow": "2.20.", "tf-keras": "2.20.", "tensorflow-recommenders": "0.7.7", "scann": "1.4.2"}
"""Distributions and the version prefixes known to work together: ScaNN's ops are built against one TensorFlow."""


def load_scann() -> Any:
    """The `scann` module, with its ops registered in TensorFlow.

    Raises:
        InstallError: ScaNN is missing, or does not fit the installed TensorFlow.
    """
    try:
        import scann
    except (ImportError, tf.errors.NotFoundError) as error:
        raise InstallError(
            "scann",
            f"cannot be loaded beside TensorFlow {tf.__version__} ({str(error).splitlines()[0]})",
            f"scann {REQUIRED['scann']} with TensorFlow {REQUIRED['tensorflow']}*",
            "pip install 'tensorflow==2.20.*' 'scann==1.4.2', or set retrieval.index.kind to exact",
        ) from error
    return scann


def version_problems() -> list[str]:
    """One line for each distribution whose installed version is not the required one."""
    lines = []
    for name, prefix in REQUIRED.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if not found.startswith(prefix):
            lines.append(f"{name}: found {found}; expected {prefix}*; pip install '{name}=={prefix.rstrip('.')}*'")
    return lines
