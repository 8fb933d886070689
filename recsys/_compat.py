"""The one place that loads TensorFlow, legacy Keras and TFRS: `from recsys._compat import keras, tf, tfrs`."""

from __future__ import annotations

import os

import recsys  # noqa: F401  (sets TF_USE_LEGACY_KERAS before TensorFlow is loaded)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_recommenders as tfrs

keras = tf.keras

__all__ = ["keras", "tf", "tfrs"]
