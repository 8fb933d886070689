"""DNIS: float rows of which each number is scaled by how much it is selected, in common for ids of like frequency.

    ẽ_i = α_b(i) ⊙ e_i,   α ∈ [0, 1]^(S x D), at first 1

The ids of a table are sorted by falling training count and cut into S blocks by their shares; ids that nobody counts
(missing, OOV, buckets) stand in the first. α is no weight of the model: neither optimizer moves it. `recsys search`
does, by validation batches (`recsys.search.dnis`).

Reference: Cheng, Shen, Huang, "Differentiable Neural Input Search for Recommender Systems", 2020 (arXiv:2006.04466),
eqs. 2 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.config import DNISTable
from recsys.embeddings.frequencies import uncounted
from recsys.embeddings.rows import FloatRows, Trained
from recsys.embeddings.served import ServedRows, served_rows


def frequency_block_of(frequencies: Mapping[str, NDArray[np.int64]], shares: Sequence[float]) -> NDArray[np.int64]:
    """[V] the block of each row of a table: 0 for the most frequent ids, and for those that nobody counts.

    Args:
        frequencies: the count of each id, by vocabulary, in the order in which they stand in the table.
        shares: of the counted ids in each block; together 1.

    Raises:
        ValueError: the values of a vocabulary do not go by falling count.
    """
    counted = np.concatenate([np.arange(len(counts)) >= uncounted(counts) for counts in frequencies.values()])
    counts = np.concatenate(list(frequencies.values()))[counted]
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    ends = np.round(np.cumsum(shares)[:-1] * len(counts)).astype(np.int64)
    blocks = np.zeros(len(counted), np.int64)
    blocks[counted] = np.searchsorted(ends, place, side="right")
    return blocks


class SelectedRows(keras.layers.Layer):
    """Float rows [V, D], which start where a full table's do, and the selection [S, D] of their numbers.

    Args:
        table: the table's name.
        config: the blocks' shares and where rows start.
        blocks: [V] from `frequency_block_of`.
        seed: of the initial rows.
    """

    def __init__(self, table: str, config: DNISTable, blocks: NDArray[np.int64], seed: int) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim, self.blocks = len(blocks), config.dim, blocks
        self._config = config
        self._floats = FloatRows(table, self.rows, config.dim, config.initializer, "float32", seed)
        # Runs of rows of one block: a lookup finds its run, whatever the size of the table.
        self._firsts = np.flatnonzero(np.diff(blocks, prepend=-1))

    def build(self, input_shape: Any) -> None:
        """Makes rows and selection."""
        self._floats.build(None)
        shape = (len(self._config.shares), self.dim)
        self.selection = self.add_weight(name="selection", shape=shape, initializer="ones", trainable=False)
        super().build(input_shape)

    @property
    def embeddings(self) -> tf.Variable:
        """[V, D] the rows as they are trained."""
        return self._floats.embeddings

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather of rows, one of their blocks' selection."""
        run = tf.searchsorted(tf.constant(self._firsts, rows.dtype), rows, side="right") - 1
        block = tf.gather(tf.constant(self.blocks[self._firsts], tf.int32), run)
        return self._floats.lookup(rows) * tf.gather(self.selection, block)

    def trained(self) -> list[Trained]:
        """The rows."""
        return self._floats.trained()

    def folded(self) -> NDArray[np.float32]:
        """[V, D] α ⊙ E: what lookups give."""
        values: NDArray[np.float32] = self.embeddings.numpy() * self.selection.numpy()[self.blocks]
        return values

    def serve(self) -> ServedRows:
        """The folded rows, as many and as wide as before: the smaller table is that of a plan."""
        return served_rows(self.folded(), self._config.served_precision or "float32")
