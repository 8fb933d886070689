"""Prints which rows features read, as JSON: for a process with another hash seed."""

from __future__ import annotations

import json

import numpy as np

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.addressing import Hashes
from recsys.embeddings.config import MultiplexedTable

IDS = (0, 1, 2, 3, 6040)
FEATURES: dict[str, FeatureInfo] = {
    name: CategoricalInfo(role="item", rows=10_000, oov_rows=1) for name in ("user_id", "movie_id", "genres")
}


def rows(features: dict[str, int], tables: int = 1) -> dict[str, list[list[int]]]:
    """By feature with so many chunks: [id][chunk] in tables of 1,318 rows."""
    config = MultiplexedTable(method="multiplexed", rows=1_318, dim=1, tables=tables)
    addressing = Hashes(config, features, FEATURES)
    ids = tf.constant(np.array(IDS))[:, tf.newaxis]
    return {name: addressing(ids, [name]).numpy().tolist() for name in features}


if __name__ == "__main__":
    print(json.dumps(rows({"user_id": 2, "genres": 2, "movie_id": 2})))
