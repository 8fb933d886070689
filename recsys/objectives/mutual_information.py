"""Which features of items tell of each other: mutual information over a catalogue, and the groups it makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.data.dataset import MISSING, FeatureInfo, NumericInfo, VectorInfo

BINS = 32
"""Into which numbers are cut, by quantile."""


def membership(values: NDArray, info: FeatureInfo) -> csr_array:
    """[N, V] which value each item has, rows summing to 1: of several values each has its share, and none is a value of
    its own. Numbers are cut into `BINS` by quantile; a vector goes by its first principal component.

    Args:
        values: encoded, as a batch of all N items holds them.
        info: what `prepare` knows of the feature.
    """
    if isinstance(info, VectorInfo):
        centred = values - values.mean(0)
        values = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    if isinstance(info, VectorInfo | NumericInfo):
        bins = pd.qcut(pd.Series(values), BINS, labels=False, duplicates="drop")
        values = bins.fillna(-1).to_numpy(np.int64) + 1
    table = values.reshape(len(values), -1)
    there = table != MISSING
    there[~there.any(1), 0] = True  # nothing at all: the value "missing"
    codes = np.unique(table[there], return_inverse=True)[1]
    counts = there.sum(1)
    data = np.repeat(1.0 / counts, counts)
    return csr_array((data, codes, np.concatenate([[0], np.cumsum(counts)])), shape=(len(values), codes.max() + 1))


def mutual_information(features: Sequence[csr_array], normalized: bool = False) -> NDArray[np.float64]:
    """[k, k] the mutual information of each two features in nats: Σ P_ij log(P_ij / (P_i P_j)), with P_ij the chance
    that an item, drawn uniformly, and a value of each of its features, likewise, are these. The diagonal is 0.

    Args:
        features: [N, V] each, by `membership`.
        normalized: divided by the entropy of the pair: 1 where each tells the other, 0 where they tell nothing. A
            feature of many values, which by itself tells much of anything, is then no longer the nearest of all.
    """
    found = np.zeros((len(features), len(features)))
    for i, one in enumerate(features):
        for j, other in enumerate(features[:i]):
            joint = (one.T @ other).tocoo()
            p = joint.data / one.shape[0]
            of_one, of_other = (each.sum(0) / one.shape[0] for each in (one, other))
            mutual = (p * np.log(p / (of_one[joint.row] * of_other[joint.col]))).sum()
            entropy = -(p * np.log(p)).sum()
            found[i, j] = found[j, i] = mutual / max(entropy, 1e-12) if normalized else mutual
    return found


def groups(mutual: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[k, k] row s says which features are masked with s as the seed: s itself and the k // 2 that tell most of it; of
    equal ones, the first.
    """
    count = len(mutual)
    apart = np.where(np.eye(count, dtype=bool), -np.inf, mutual.round(9))
    nearest = np.argsort(-apart, axis=1, kind="stable")[:, : count // 2]
    masked = np.eye(count, dtype=bool)
    np.put_along_axis(masked, nearest, True, axis=1)
    return masked
