"""ScaNN inside a SavedModel. Whoever loads such a model has to `import scann` first, which registers its ops.

This module imports TensorFlow at its top, to be a `tf.Module`; the package's `__init__` is lazy.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from recsys._scann import load_scann
from recsys.retrieval.scann_index import ScannIndex

_SPECS = {
    "scann_config": (None, tf.string),
    "serialized_partitioner": ("PARTITIONER", tf.string),
    "datapoint_to_token": ("TOKENIZATION_NPY", tf.int32),
    "ah_codebook": ("AH_CENTERS", tf.string),
    "hashed_dataset": ("AH_DATASET_NPY", tf.uint8),
    "int8_dataset": ("INT8_DATASET_NPY", tf.int8),
    "int8_multipliers": ("INT8_MULTIPLIERS_NPY", tf.float32),
    "dp_norms": ("INT8_NORMS_NPY", tf.float32),
    "dataset": ("DATASET_NPY", tf.float32),
}
"""The parts of a searcher in the order of `ScannState`: asset type among the searcher's files, dtype in the graph."""


class InGraphIndex(tf.Module):
    """A snapshot of a `ScannIndex` whose parts are variables of the module, so that a SavedModel carries them.

    It finds what the live index finds, but knows no filters and no updates. Hold on to the module while you call its
    `search` (a `tf.function` keeps no reference to it).
    """

    def __init__(self, state: Any, index: ScannIndex) -> None:
        """Use `of`."""
        super().__init__()
        self._state = state
        self._setting = index.setting
        self._prefix = index.config.prefix
        self._rows = tf.Variable(index.rows.ids, trainable=False)
        if self._prefix is not None:
            self._vectors = tf.Variable(index.vectors[index.rows.ids], trainable=False)

    @classmethod
    def of(cls, index: ScannIndex) -> Self:
        """A snapshot of the live index."""
        with tempfile.TemporaryDirectory() as folder:
            searcher = Path(folder) / "scann"
            index.save_searcher(searcher)
            parts = _parts(searcher)
        return cls(load_scann().scann_ops.ScannState(parts), index)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.float32, "queries"), tf.TensorSpec([], tf.int32, "k")],
        autograph=False,
    )
    def search(self, queries: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids [Q, k] int32 and scores [Q, k] of the best, best first; -1 and -inf where ScaNN finds fewer."""
        searcher = load_scann().scann_ops.searcher_from_module(self._state)
        reorder = tf.maximum(k, self._setting.reorder)
        places, scores = searcher.search_batched(
            queries[:, : self._prefix],
            final_num_neighbors=k if self._prefix is None else reorder,
            pre_reorder_num_neighbors=reorder,
            leaves_to_search=self._setting.leaves_to_search,
        )
        # ScaNN's rows are as wide as the longest result; a shorter one is filled up with NaN.
        found = tf.math.is_finite(scores)
        scores = tf.where(found, scores, -np.inf)
        places = tf.where(found, tf.cast(places, tf.int32), 0)
        if self._prefix is not None:
            whole = tf.einsum("qcd,qd->qc", tf.gather(self._vectors, places), queries)
            scores, best = tf.math.top_k(tf.where(found, whole, -np.inf), tf.minimum(k, tf.shape(whole)[1]))
            places = tf.gather(places, best, batch_dims=1)
        ids = tf.where(tf.math.is_finite(scores), tf.gather(self._rows, places), -1)
        missing = [[0, 0], [0, k - tf.shape(scores)[1]]]
        return tf.pad(ids, missing, constant_values=-1), tf.pad(scores, missing, constant_values=-np.inf)


def _parts(folder: Path) -> list[tf.Tensor]:
    """The searcher's files as the tensors that ScaNN's `serialize_to_module` would give."""
    listing = (folder / "scann_assets.pbtxt").read_text(encoding="utf-8")
    files = dict(re.findall(r'asset_type: (\w+)\s+asset_path: "([^"]+)"', listing))
    unknown = set(files) - {asset for asset, _ in _SPECS.values()}
    if unknown:
        raise ValueError(f"ScaNN wrote {', '.join(sorted(unknown))}, which the graph's searcher has no place for")
    return [_part(folder, files.get(asset) if asset else "scann_config.pb", dtype) for asset, dtype in _SPECS.values()]


def _part(folder: Path, file: str | None, dtype: tf.DType) -> tf.Tensor:
    if file is None:  # ScaNN's sign for "none" is a scalar.
        return tf.constant("" if dtype == tf.string else 0, dtype)
    if dtype == tf.string:
        return tf.constant([(folder / file).read_bytes()])
    return tf.constant(np.load(folder / file, allow_pickle=False), dtype)
