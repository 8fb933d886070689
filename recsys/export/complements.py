"""The second index of a bundle: what goes with an item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.pairs import pairs_of
from recsys.data.prepared import Prepared
from recsys.errors import ExportError
from recsys.models.config import ComplementsConfig
from recsys.retrieval import ExactIndex, ScannIndex, build_index
from recsys.training.complements import dual_vectors

TUNED_BY = 1_000
"""Items by whose input vectors the index is tuned."""


@dataclass(frozen=True)
class Complements:
    """Input vectors, and an index over the output vectors."""

    inputs: NDArray[np.float32]
    """[N, d]; 0 for items of which too little is known."""
    index: ExactIndex | ScannIndex


def make_complements(prepared: Prepared, config: ComplementsConfig, seed: int) -> Complements:
    """Trains the vectors on what users met soon after what in the training part, and indexes them.

    Raises:
        ExportError: too few items stand in enough pairs; or the index does not keep its promise, or does not fit.
    """
    pairs = pairs_of(prepared, config.window)
    items = len(prepared.train_count)
    if len(pairs.first):
        vectors = dual_vectors(pairs, items, config, seed)
        known = np.flatnonzero(vectors.inputs.any(1))
    if not len(pairs.first) or not len(known) or vectors.indexed.sum() < 2:
        raise ExportError(
            f"{prepared.info.name}: complements",
            f"{len(pairs.first):,} pairs, and no item in as many as complements.min_count",
            f"items that begin and end {config.min_count} pairs",
            "lower complements.min_count, raise complements.window, or remove the section",
        )
    begins = np.bincount(pairs.first, minlength=items)[known]
    queries = vectors.inputs[known[np.argsort(-begins, kind="stable")[:TUNED_BY]]]
    try:
        index = build_index(vectors.outputs, config.index, queries)
    except ValueError as error:
        raise ExportError("complements.index", str(error)) from error
    index.delete(np.flatnonzero(~vectors.indexed))
    return Complements(vectors.inputs, index)
