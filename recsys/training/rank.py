"""Whether vectors collapse while they are trained: their effective rank, in the logs."""

from __future__ import annotations

import numpy as np

from recsys._compat import keras, tf
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.metrics import effective_rank

SAMPLE = 4_096
"""Items, and queries, whose vectors are looked at: always the same ones."""


class VectorRank(keras.callbacks.Callback):
    """Adds `rank_item` and `rank_query`, RankMe of a two_tower's vectors, to the logs of every epoch.

    Args:
        prepared: the data set; its catalogue and training examples are sampled evenly.
    """

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        some = np.linspace(0, prepared.info.counts.items - 1, min(SAMPLE, prepared.info.counts.items)).astype(np.int64)
        query = Examples(prepared, "train", 1, None, positives_only=True).sample(SAMPLE)["query"]
        self._item = {name: tf.constant(column[some]) for name, column in prepared.item_features.items()}
        self._query = {name: tf.constant(column) for name, column in query.items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks and logs."""
        if logs is not None:  # without a graph: it would be traced for these shapes alone
            logs["rank_item"] = effective_rank([self.model.item_tower(self._item).numpy()])
            logs["rank_query"] = effective_rank([self.model.query_tower(self._query).numpy()])
