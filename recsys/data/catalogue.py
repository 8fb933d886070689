"""The catalogue inside a graph: what a batch says of its items, of any items, by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys._compat import tf
from recsys.data.prepared import Prepared


class Catalogue:
    """All N items, those without any training event too: how often training met them, and their encoded features.

    It belongs to no checkpoint and no bundle: it is read from the prepared data again. In a graph the features are
    tensors outside it, and taking some items' costs what those items cost, whatever N is.

    Args:
        train_count: [N] positive training events of each item.
        features: encoded item features that the model reads, each [N, ...], as a batch holds them; they may be left out
            where nothing asks for them.
        users: U, how many users the data have, for what keeps something of each.
        ids: the features that are nothing but an item's id.
    """

    def __init__(
        self,
        train_count: ArrayLike,
        features: Mapping[str, NDArray] | None = None,
        users: int = 0,
        ids: Sequence[str] = (),
    ) -> None:
        self.train_count = np.asarray(train_count, np.int64)
        self.users, self.ids = users, tuple(ids)
        self.columns = dict(features or {})
        self._tensors: dict[str, tf.Tensor] = {}
        lengths = {name: len(column) for name, column in self.columns.items() if len(column) != self.size}
        if lengths:
            raise ValueError(f"features of {self.size} items are needed, and these have others: {lengths}")

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """Of a prepared data set."""
        schema = prepared.info.table_schema
        ids = [name for name in prepared.names("item") if schema.column(name) == schema.item]
        return cls(prepared.train_count, prepared.item_features, prepared.info.counts.users, ids)

    @property
    def size(self) -> int:
        """N."""
        return len(self.train_count)

    def features(self, item_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """By name the encoded features of items of any shape [...], each [..., ] with its own axes behind.

        Args:
            item_index: integers in [0, N).
        """
        if not self._tensors and self.columns:
            with tf.init_scope():  # outside of any graph, so that none holds a copy
                self._tensors = {name: tf.constant(column) for name, column in self.columns.items()}
        return {name: tf.gather(tensor, item_index) for name, tensor in self._tensors.items()}
