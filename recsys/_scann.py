"""The one place that loads ScaNN. A server needs it without Keras and TFRS, so it stands apart from `_compat`."""

from __future__ import annotations

import os
from typing import Any

import recsys  # noqa: F401  (sets TF_USE_LEGACY_KERAS before TensorFlow is loaded)
from recsys._versions import REQUIRED
from recsys.errors import InstallError


def load_scann() -> Any:
    """The `scann` module, with its ops registered in TensorFlow.

    Raises:
        InstallError: ScaNN is missing, or does not fit the installed TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    try:
        import scann
    except (ImportError, tf.errors.NotFoundError) as error:
        raise InstallError(
            "scann",
            f"cannot be loaded beside TensorFlow {tf.__version__} ({str(error).splitlines()[0]})",
            f"scann {REQUIRED['scann']} with TensorFlow {REQUIRED['tensorflow']}*",
            f"pip install 'tensorflow=={REQUIRED['tensorflow']}*' 'scann=={REQUIRED['scann']}',"
            " or set retrieval.index.kind to exact",
        ) from error
    return scann
