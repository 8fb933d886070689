"""recsys: a feature-embedding engine for recommender systems.

Importing it sets `TF_USE_LEGACY_KERAS=1` (TFRS and the table optimizers live on Keras 2) and loads nothing heavy.
"""

from __future__ import annotations

import os
import sys

import lazy_loader

from recsys.errors import InstallError


def _choose_legacy_keras() -> None:
    tensorflow = sys.modules.get("tensorflow")
    # tf.keras is a lazy loader until its first use, then the module itself. `vars` looks without resolving it.
    loader = vars(tensorflow).get("keras") if tensorflow is not None else None
    keras = vars(loader) if loader is not None else {}
    if str(keras.get("__name__")).startswith("keras.") or keras.get("_tfll_keras_version") == "keras_3":
        raise InstallError(
            "import recsys",
            "tf.keras has already resolved to Keras 3 in this process",
            "Keras 2 (tf_keras)",
            "import recsys before anything that uses tf.keras, or run with TF_USE_LEGACY_KERAS=1",
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_choose_legacy_keras()

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
