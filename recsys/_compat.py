"""The one place that loads TensorFlow, legacy Keras and TFRS: `from recsys._compat import keras, tf, tfrs`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import recsys  # noqa: F401  (sets TF_USE_LEGACY_KERAS before TensorFlow is loaded)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_recommenders as tfrs

if TYPE_CHECKING:  # an import, so that type checkers take Keras' classes for types
    from tensorflow import keras
else:
    keras = tf.keras

__all__ = ["keras", "tf", "tfrs"]
