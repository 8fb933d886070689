"""Mixed dimensions: rows as wide as their ids are frequent, each projected to one width.

An id seen p times in training has a row of d (p / p_max)^alpha numbers, rounded to a power of two; p_max is the largest
count in the table. The ids of a vocabulary are sorted by falling count, so its ids of one width are a range of ids, a
*block*: where a row stands follows from its block's bounds, and a bundle holds no indices. Blocks of one width stand in
one variable; each block narrower than d has a linear projection of its own, as in the paper.

Reference: Ginart, Naumov, Mudigere, Yang, Zou, "Mixed Dimension Embeddings with Application to Memory-Efficient
Recommendation Systems", 2019 (arXiv:1909.11810), the popularity-based scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.config import InitializerConfig
from recsys.embeddings.frequencies import uncounted
from recsys.embeddings.rows import FloatRows, Trained
from recsys.embeddings.seeds import seed_for
from recsys.embeddings.served import ServedRows


@dataclass(frozen=True)
class Block:
    """The ids of one vocabulary that have one width."""

    vocabulary: str
    first: int
    """The table's row where the block begins."""
    rows: int
    width: int


def frequency_blocks(dim: int, alpha: float, frequencies: Mapping[str, NDArray[np.int64]]) -> list[Block]:
    """The blocks of a table, in the order of its rows.

    Args:
        dim: of the widest rows.
        alpha: how fast widths fall with the count; 0 for not at all.
        frequencies: the count of each id, by vocabulary, in the order in which they stand in the table.

    Raises:
        ValueError: the values of a vocabulary do not go by falling count.
    """
    most = max(1, *(int(counts.max()) for counts in frequencies.values()))
    blocks, start = list[Block](), 0
    for vocabulary, counts in frequencies.items():
        widths = id_widths(dim, alpha, counts, most)
        firsts = np.flatnonzero(np.diff(widths, prepend=0))
        sizes = np.diff(firsts, append=len(widths))
        blocks += [
            Block(vocabulary, start + int(first), int(size), int(widths[first]))
            for first, size in zip(firsts, sizes, strict=True)
        ]
        start += len(widths)
    return blocks


def id_widths(dim: int, alpha: float, counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """[V] the width of each id: a power of two below `dim`, or `dim`; at least 1, and falling.

    Ids that are not counted are as wide as the vocabulary's most frequent value, or `dim` where nothing is counted:
    they are few, and a missing value or a bucket of a number is often frequent.

    >>> id_widths(16, 1.0, np.array([0, 0, 60, 20, 5, 1]), most=100).tolist()
    [8, 8, 8, 4, 1, 1]
    """
    special = uncounted(counts)
    known = np.concatenate([np.full(special, counts.max() if counts.any() else most), counts[special:]])
    ideal = np.maximum(dim * (known / most) ** alpha, 1.0)
    # Halfway is up on every machine, whichever way its logarithm errs.
    powers = 2 ** np.floor(np.log2(ideal) + 0.5 + 1e-9).astype(np.int64)
    return np.minimum(powers, dim)


class FrequencyBlocks(keras.layers.Layer):
    """One variable [n, w] for each width w, and a projection [w, D] for each block narrower than D.

    The projections are the dense optimizer's. They keep the scale of the rows: a sum of w products has the variance of
    one row's number if the projection's variance is 1 / w.

    Args:
        table: the table's name.
        blocks: in the order of the table's rows.
        dim: D.
        initializer: where rows start.
        seed: of the initial values.
    """

    def __init__(
        self, table: str, blocks: Sequence[Block], dim: int, initializer: InitializerConfig, seed: int
    ) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim = sum(block.rows for block in blocks), dim
        self._table, self.blocks, self._seed = table, list(blocks), seed
        self._widths = sorted({block.width for block in blocks}, reverse=True)
        self._stores = [
            FloatRows(
                f"{table}_{width}",
                sum(block.rows for block in blocks if block.width == width),
                width,
                initializer,
                "float32",
                seed_for(seed, str(width)),
            )
            for width in self._widths
        ]
        self._firsts, self._shifts = _bounds(blocks)

    def build(self, input_shape: Any) -> None:
        """Makes the rows of every width and the projections."""
        for store in self._stores:
            with tf.name_scope(store.name):
                store.build(None)
        self.projections = {
            _name(block): self.add_weight(
                name=f"projection_{_name(block)}",
                shape=(block.width, self.dim),
                initializer=keras.initializers.LecunUniform(seed=seed_for(self._seed, "projection", _name(block))),
            )
            for block in self.blocks
            if block.width < self.dim
        }
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather for each width, of the rows that have it, and one product for each narrower block."""
        block = tf.searchsorted(tf.constant(self._firsts, rows.dtype), rows, side="right") - 1
        within = rows - tf.gather(tf.constant(self._shifts, rows.dtype), block)
        by_block = tf.dynamic_partition(within, block, len(self.blocks))
        places = tf.dynamic_partition(tf.range(tf.size(rows)), block, len(self.blocks))
        vectors, order = list[tf.Tensor](), list[tf.Tensor]()
        for width, store in zip(self._widths, self._stores, strict=True):
            members = [number for number, block in enumerate(self.blocks) if block.width == width]
            found = store.lookup(tf.concat([by_block[number] for number in members], 0))
            order += [places[number] for number in members]
            vectors += self._projected(found, members, [tf.size(by_block[number]) for number in members])
        stitched = tf.dynamic_stitch(order, vectors)
        return tf.ensure_shape(stitched, [None, self.dim])

    def _projected(self, found: tf.Tensor, members: list[int], sizes: list[tf.Tensor]) -> list[tf.Tensor]:
        """The vectors of each block in `members`, from the rows of all of them."""
        parts = tf.split(found, sizes)
        if found.shape[1] == self.dim:
            return parts
        return [part @ self.projections[_name(self.blocks[n])] for n, part in zip(members, parts, strict=True)]

    def trained(self) -> list[Trained]:
        """The rows of every width."""
        found = [trained for store in self._stores for trained in store.trained()]
        return [replace(trained, table=self._table) for trained in found]

    def serve(self) -> ServedRows:
        """The same blocks."""
        return self


def _bounds(blocks: Sequence[Block]) -> tuple[list[int], list[int]]:
    """Of each block, the first of the table's rows, and what to subtract from a row for its place in its width's
    variable.
    """
    filled: dict[int, int] = {}
    shifts = []
    for block in blocks:
        place = filled.get(block.width, 0)
        shifts.append(block.first - place)
        filled[block.width] = place + block.rows
    return [block.first for block in blocks], shifts


def _name(block: Block) -> str:
    return f"{block.vocabulary}_{block.width}"
