"""Stores of the rows that a plan keeps of a full table: as small as the plan says, while they train and in a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.addressing import vocabulary_rows
from recsys.embeddings.config import EmbeddingsConfig, FullTable, Precision
from recsys.embeddings.layout import Layout
from recsys.embeddings.plan import EmbeddingPlan, TablePlan, vocabulary_digest
from recsys.embeddings.rows import Trained, make_initializer
from recsys.embeddings.served import ServedRows, served_rows
from recsys.errors import DataError, Problem


def plans_of(
    config: EmbeddingsConfig,
    features: Mapping[str, FeatureInfo],
    values: Callable[[str], NDArray[np.object_]] | None,
) -> Mapping[str, TablePlan]:
    """The plans of a config's tables, made for these vocabularies; none where it names no plan.

    Args:
        config: that fits its plan.
        features: what `prepare` knows of all features.
        values: from a feature with a vocabulary to the text of each id after the missing and OOV ids.

    Raises:
        ValueError: there are no `values`.
        DataError: the plan cannot be read, or was made for other vocabularies; a problem for each.
    """
    if config.plan is None:
        return {}
    if values is None:
        raise ValueError("a plan needs the vocabularies")
    plan, problems = EmbeddingPlan.load(Path(config.plan)), list[Problem]()
    for name, table in plan.tables.items():
        for owner, vocabulary in table.vocabularies.items():
            found = vocabulary_digest(features[owner], partial(values, owner))
            rows = vocabulary_rows(features[owner])
            if (vocabulary.digest, vocabulary.ids) != (found, rows):
                place = f"{config.plan}: tables.{name}.vocabularies.{owner}"
                text = (
                    f"made for another vocabulary of {owner!r}: {vocabulary.ids} ids, digest {vocabulary.digest[:12]}"
                )
                expected = f"that of the prepared data: {rows} ids, digest {found[:12]}"
                cure = "bring back the data and the schema that were searched, or search again: recsys search"
                problems.append(Problem(place, text, expected, cure))
    if problems:
        raise DataError(problems)
    return plan.tables


class PlannedRows(keras.layers.Layer):
    """What a plan keeps of a full table [V, D]: a variable for each group of blocks, and the bits of scattered ones.

    Looked-up rows are [D], with zeros where nothing is kept. Numbers start where the full table's would from the same
    seed, or at the plan's `weights`. While they are made, the full rows are in memory once.

    Args:
        table: the table's name.
        config: of the full table.
        plan: what is kept of it.
        vocabularies: their order in the table.
        seed: of the initial values.
    """

    def __init__(self, table: str, config: FullTable, plan: TablePlan, vocabularies: Sequence[str], seed: int) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self._table, self._config, self._seed = table, config, seed
        self._plan, self._order = plan, tuple(vocabularies)
        self.layout = Layout(plan, vocabularies)
        self.rows, self.dim = self.layout.rows, plan.dim

    def build(self, input_shape: Any) -> None:
        """Makes the variables."""
        self._row_pages = self._bits("row_bits", self.layout.row_pages())
        self._element_pages = self._bits("element_bits", self.layout.element_pages())
        self.groups = [
            self.add_weight(name=f"rows_{number}", shape=values.shape, initializer=_given(values))
            for number, values in enumerate(self.layout.cut(self._initial()))
        ]
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather for each group."""
        sources = [lambda places, group=group: tf.nn.embedding_lookup(group, places) for group in self.groups]
        return self.layout.lookup(rows, self._row_pages, self._element_pages, sources)

    def trained(self) -> list[Trained]:
        """The rows of every group."""
        return [Trained(self._table, group, group) for group in self.groups]

    def serve(self) -> ServedRows:
        """The same groups, at the served precision.

        Raises:
            ValueError: a value cannot be stored at it.
        """
        precision = self._config.served_precision or "float32"
        if precision == "float32":
            return self
        values = [group.numpy() for group in self.groups]
        return ServedPlan(self.layout, values, precision)

    def _initial(self) -> NDArray[np.float32]:
        """[V, D] where the full rows start."""
        with tf.init_scope():
            drawn = make_initializer(self._config.initializer, self._seed)((self.rows, self.dim), tf.float32)
            values = np.array(drawn.numpy())
        start = 0
        for name in self._order:
            vocabulary = self._plan.vocabularies[name]
            if vocabulary.weights is not None:
                values[start : start + vocabulary.ids][vocabulary.mask(self.dim)] = vocabulary.weights
            start += vocabulary.ids
        return values

    def _bits(self, name: str, stored: NDArray[np.int32]) -> tf.Variable | None:
        if not len(stored):
            return None
        return self.add_weight(
            name=name, shape=stored.shape, dtype=tf.int32, initializer=_given(stored), trainable=False
        )


class ServedPlan(tf.Module):
    """The groups below float32, and the bits.

    Raises:
        ValueError: a value cannot be stored at the precision.
    """

    def __init__(self, layout: Layout, values: Sequence[NDArray[np.float32]], precision: Precision) -> None:
        super().__init__()
        self._layout = layout
        self.groups = [served_rows(each, precision) for each in values]
        self._row_pages = _variable("row_bits", layout.row_pages())
        self._element_pages = _variable("element_bits", layout.element_pages())

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather for each group."""
        sources = [group.lookup for group in self.groups]
        return self._layout.lookup(rows, self._row_pages, self._element_pages, sources)


def _given(values: NDArray) -> Any:
    return lambda shape, dtype: tf.constant(values, dtype)


def _variable(name: str, stored: NDArray[np.int32]) -> tf.Variable | None:
    return tf.Variable(stored, trainable=False, name=name) if len(stored) else None
