"""The one place that loads TensorFlow, legacy Keras and TFRS: `from recsys._compat import keras, tf, tfrs`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import recsys  # noqa: F401  (sets TF_USE_LEGACY_KERAS before TensorFlow is loaded)
from recsys._versions import version_problems
from recsys.errors import InstallError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    tf.keras.Model  # noqa: B018  (loaded on first use)
except ImportError as error:
    raise InstallError(
        "TensorFlow, Keras 2 and TFRS",
        f"cannot be loaded together ({str(error).splitlines()[0]})",
        "versions that fit each other",
        " and ".join(version_problems()) or "recsys doctor",
    ) from error

if TYPE_CHECKING:  # an import, so that type checkers take Keras' classes for types
    from tensorflow import keras
else:
    keras = tf.keras

__all__ = ["keras", "tf", "tfrs"]
