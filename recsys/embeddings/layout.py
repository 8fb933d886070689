"""Where the rows of a table under a plan stand, and how a lookup finds them.

Blocks whose rows have the same coordinates stand in one *group*, one variable [n, w]; all element blocks are one more
group, a variable [numbers, 1]. A lookup finds the block of each row by the blocks' bounds, cuts the rows by group,
gathers once for each group, and puts zeros where nothing is kept: every vector is [D].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.bitmap import is_set, pages, rank
from recsys.embeddings.plan import ElementBlock, RowBlock, TablePlan

Source = Callable[[tf.Tensor], tf.Tensor]
"""From places [n] in a group to its rows [n, w]."""


@dataclass(frozen=True)
class Group:
    """Blocks that are stored in one variable."""

    columns: tuple[int, ...] | None
    """Coordinates of the rows; None for single numbers."""
    rows: int
    """[rows, w] is the variable's shape."""

    @property
    def width(self) -> int:
        """Numbers of a stored row."""
        return 1 if self.columns is None else len(self.columns)


@dataclass(frozen=True)
class _Place:
    """What a lookup must know of a block."""

    first: int
    """The table's row where it begins."""
    group: int
    """Of its kept rows."""
    start: int
    """Where its rows begin in the group; for elements, among the rows of all element blocks."""
    is_scattered: bool
    bit: int
    """Of its first row among the bits of scattered blocks."""
    bits_before: int
    """Set bits before that."""
    is_pruned: bool
    """No id has a row of its own."""
    pruned_group: int
    pruned_start: int
    """Where pruned ids read."""


class Layout:
    """The groups of a table under a plan.

    Args:
        plan: of the table.
        vocabularies: their order in the table.
    """

    def __init__(self, plan: TablePlan, vocabularies: Sequence[str]) -> None:
        self.dim = plan.dim
        self.blocks = [block for name in vocabularies for block in plan.vocabularies[name].blocks]
        self.rows = sum(block.ids for block in self.blocks)
        columns = dict.fromkeys(b.columns for b in self.blocks if isinstance(b, RowBlock) and b.stored_rows)
        self.groups = [
            Group(each, sum(b.stored_rows for b in self.blocks if isinstance(b, RowBlock) and b.columns == each))
            for each in columns
        ]
        numbers = sum(block.numbers for block in self.blocks if isinstance(block, ElementBlock))
        if numbers:
            self.groups.append(Group(None, numbers))
        self._is_whole = all(isinstance(b, RowBlock) and b.kept_rows == b.ids for b in self.blocks)
        self._places = _places(self.blocks, list(columns), nowhere=len(self.groups))

    def row_pages(self) -> NDArray[np.int32]:
        """The bits of scattered row blocks."""
        kept = [b.kept for b in self.blocks if isinstance(b, RowBlock) and b.is_scattered and b.kept is not None]
        return pages(np.concatenate(kept) if kept else np.zeros(0, bool))

    def element_pages(self) -> NDArray[np.int32]:
        """The bits of element blocks."""
        kept = [b.kept.ravel() for b in self.blocks if isinstance(b, ElementBlock) and b.numbers]
        return pages(np.concatenate(kept) if kept else np.zeros(0, bool))

    def cut(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """[rows, w] what each group keeps of the full rows [V, D]; shared rows are zero."""
        parts: list[list[NDArray[np.float32]]] = [[] for _ in self.groups]
        for block, place in zip(self.blocks, self._places, strict=True):
            full = values[place.first : place.first + block.ids]
            if isinstance(block, ElementBlock):
                if block.numbers:
                    parts[place.group].append(full[block.kept][:, np.newaxis])
                continue
            if block.kept_rows:
                rows = full if block.kept is None else full[block.kept]
                parts[place.group].append(rows[:, list(block.columns)])
            if block.shares:
                parts[place.pruned_group].append(np.zeros((1, len(block.columns)), np.float32))
        return [np.concatenate(part) for part in parts]

    def read_as(self) -> NDArray[np.int64]:
        """[V] the row that stands for each of the table's rows: of those that share one, the first of them."""
        found = np.arange(self.rows)
        for block, place in zip(self.blocks, self._places, strict=True):
            if isinstance(block, RowBlock) and block.shares:
                pruned = _pruned(block)
                found[place.first + pruned] = place.first + pruned[0]
        return found

    def stored(self) -> NDArray[np.int64]:
        """[n] of each stored row (or single number), group after group, the table's row that stands for it."""
        parts: list[list[NDArray[np.int64]]] = [[] for _ in self.groups]
        for block, place in zip(self.blocks, self._places, strict=True):
            rows = place.first + np.arange(block.ids)
            if isinstance(block, ElementBlock):
                if block.numbers:
                    parts[place.group].append(np.repeat(rows, block.kept.sum(1)))
                continue
            if block.kept_rows:
                parts[place.group].append(rows if block.kept is None else rows[block.kept])
            if block.shares:
                parts[place.pruned_group].append(rows[_pruned(block)[:1]])
        return np.concatenate([each for part in parts for each in part] or [np.zeros(0, np.int64)])

    def lookup(self, rows: tf.Tensor, row_pages: object, element_pages: object, sources: Sequence[Source]) -> tf.Tensor:
        """[n, D] the vectors of the table's rows [n].

        Args:
            rows: int32 or int64.
            row_pages: variable with `row_pages()`.
            element_pages: variable with `element_pages()`.
            sources: of each group.
        """
        if not self.groups:
            return tf.zeros([tf.size(rows), self.dim])
        if len(self.groups) == 1 and self._is_whole and self.groups[0].columns is not None:
            return self._spread(sources[0](rows), self.groups[0].columns)
        group, place = self._route(rows, row_pages)
        count = len(self.groups)
        by_group = tf.dynamic_partition(place, tf.cast(group, tf.int32), count + 1)
        order = tf.dynamic_partition(tf.range(tf.size(rows)), tf.cast(group, tf.int32), count + 1)
        vectors = [tf.zeros([tf.size(by_group[count]), self.dim])]
        for each, places, source in zip(self.groups, by_group, sources, strict=False):
            if each.columns is None:
                vectors.append(self._elements(places, element_pages, source))
            else:
                vectors.append(self._spread(source(places), each.columns))
        stitched = tf.dynamic_stitch([order[count], *order[:count]], vectors)
        return tf.ensure_shape(stitched, [None, self.dim])

    def _route(self, rows: tf.Tensor, row_pages: object) -> tuple[tf.Tensor, tf.Tensor]:
        """[n] the group that each row stands in, one past the last for nowhere; and its place there."""
        facts = np.array([[*vars(place).values()] for place in self._places], np.int64)
        block = tf.searchsorted(tf.constant(facts[:, 0], rows.dtype), rows, side="right") - 1
        found = tf.unstack(tf.gather(tf.constant(facts, rows.dtype), block), axis=1)
        first, group, start, is_scattered, bit, bits_before, is_pruned, pruned_group, pruned_start = found
        within = rows - first
        pruned = tf.cast(is_pruned, tf.bool)
        if any(place.is_scattered for place in self._places):
            scattered = tf.cast(is_scattered, tf.bool)
            position = tf.where(scattered, bit + within, 0)
            pruned = tf.where(scattered, ~is_set(row_pages, position), pruned)
            before = tf.cast(rank(row_pages, position), rows.dtype) - bits_before
            within = tf.where(scattered, before, within)
        return tf.where(pruned, pruned_group, group), tf.where(pruned, pruned_start, start + within)

    def _spread(self, found: tf.Tensor, columns: tuple[int, ...]) -> tf.Tensor:
        """[n, D] with the numbers [n, w] at their coordinates."""
        if len(columns) == self.dim:
            return found
        if columns == tuple(range(len(columns))):
            return tf.pad(found, [[0, 0], [0, self.dim - len(columns)]])
        source = np.full(self.dim, len(columns))
        source[list(columns)] = np.arange(len(columns))
        return tf.gather(tf.pad(found, [[0, 0], [0, 1]]), source, axis=1)

    def _elements(self, places: tf.Tensor, stored: object, source: Source) -> tf.Tensor:
        """[n, D] of the rows [n] of the element blocks: which numbers a row has, and how many stand before it. Each
        distinct row is put together once.
        """
        places, index = tf.unique(places)
        bits = self.dim * sum(block.ids for block in self.blocks if isinstance(block, ElementBlock))
        first = tf.cast(places, tf.int32 if bits < 2**31 else tf.int64) * self.dim
        kept = is_set(stored, first[:, tf.newaxis] + tf.range(self.dim, dtype=first.dtype))
        within = tf.cumsum(tf.cast(kept, tf.int32), axis=1, exclusive=True)
        spots = tf.where(kept)
        numbers = source(tf.gather_nd(rank(stored, first)[:, tf.newaxis] + within, spots))
        return tf.gather(tf.scatter_nd(spots, numbers[:, 0], tf.shape(kept, tf.int64)), index)


def _pruned(block: RowBlock) -> NDArray[np.int64]:
    """The places in the block of the ids without a row."""
    return np.flatnonzero(~block.kept) if block.kept is not None else np.zeros(0, np.int64)


def _places(blocks: Sequence[RowBlock | ElementBlock], columns: list[tuple[int, ...]], nowhere: int) -> list[_Place]:
    filled, first, bit, bits, element_rows = [0] * len(columns), 0, 0, 0, 0
    found = []
    for block in blocks:
        group = start = 0
        pruned_group, pruned_start, is_scattered, is_pruned = nowhere, 0, False, block.numbers == 0
        bits_before = bits
        if isinstance(block, ElementBlock):
            if block.numbers:
                group, start = len(columns), element_rows
                element_rows += block.ids
        elif block.stored_rows:
            group = columns.index(block.columns)
            start = filled[group]
            filled[group] += block.stored_rows
            is_scattered = block.is_scattered
            if block.shares:
                pruned_group, pruned_start = group, start + block.kept_rows
        place = _Place(first, group, start, is_scattered, bit, bits_before, is_pruned, pruned_group, pruned_start)
        found.append(place)
        first += block.ids
        if is_scattered:
            bit, bits = bit + block.ids, bits + block.kept_rows
    return found
