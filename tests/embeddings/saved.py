"""Served rows, written as a bundle writes them, and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.served import ServedRows


def saved(served: ServedRows, path: Path) -> int:
    """Writes a SavedModel whose signature looks up `rows` [n] int32; returns the bytes of its variables."""
    lookup = tf.function(lambda rows: {"vectors": served.lookup(rows)}, autograph=False)
    function = lookup.get_concrete_function(tf.TensorSpec([None], tf.int32, "rows"))
    module = tf.Module()
    module.serve, module.read = function, list(function.variables)
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    return sum(file.stat().st_size for file in (path / "variables").glob("variables.data-*"))


def looked_up(path: Path, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """[n, dim] what the SavedModel says of rows."""
    return tf.saved_model.load(str(path)).signatures["serving_default"](rows=tf.constant(rows))["vectors"].numpy()
