"""What the tables' optimizers share: a step costs what the batch touches, not what the table holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.optimizers.access import AllRows, Rows, SomeRows, Weights, weights_of
from recsys.embeddings.optimizers.gradients import Gradient, deduplicate
from recsys.embeddings.packing import SCALE_BYTES
from recsys.embeddings.seeds import seed_for

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
Slots = dict[str, tf.Tensor]
"""Rows of the slots, by name: float32 [n, d], or [n, 1]."""

_LAST = "last_step"
_BLOCK = 1 << 16


@dataclass(frozen=True)
class SlotSpec:
    """A number that an optimizer keeps for every weight, or for every row."""

    per_weight: bool = True
    initial: float = 0.0


class SparseOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer of tables [V, d]: sums the gradients of repeated ids once, clips, moves the touched rows only.

    Keras' own order, clipping first, gets the norms of repeated ids wrong. XLA stays off: it makes the update dense.
    Slots are float32 whatever type the table is stored in; `step`, which a subclass implements, sees rows in float32.

    Args:
        learning_rate: a number, or a Keras schedule.
        decoupled_decay: λ of AdamW's decay. Every step multiplies all rows by (1 - learning_rate λ): a row makes up for
            the steps that it slept through when it is next touched, or flushed. Exact for a constant learning rate.
        mini_batch_aware_decay: λ of DIN's (Zhou et al., KDD 2018, eq. 7). Every step adds λ w / n to the gradient of
            each touched row, when that has been summed over the batch (of all replicas) and clipped; `build` takes n.
        scale_learning_rate: of the scales of int8 rows.
        clipnorm: largest norm of each gradient, repeated ids summed.
        global_clipnorm: largest joint norm of all gradients of this optimizer.
        name: of the optimizer.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        decoupled_decay: float,
        mini_batch_aware_decay: float,
        scale_learning_rate: float,
        clipnorm: float | None,
        global_clipnorm: float | None,
        name: str,
    ) -> None:
        # The default, weight_decay=0, would pass over the whole table to subtract zeros.
        super().__init__(name, None, clipnorm=clipnorm, global_clipnorm=global_clipnorm, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.decoupled_decay, self.scale_learning_rate = decoupled_decay, scale_learning_rate
        self.mini_batch_aware_decay = mini_batch_aware_decay

    def slot_specs(self) -> dict[str, SlotSpec]:
        """The slots of each table, by name."""
        raise NotImplementedError

    def step(self, weights: tf.Tensor, gradient: tf.Tensor, slots: Slots) -> tuple[tf.Tensor, Slots]:
        """The touched rows [n, d] and their slots after a step; all float32."""
        raise NotImplementedError

    def catch_up(self, weights: tf.Tensor, slots: Slots, last: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, Slots]:
        """Rows [n, d] and their slots after `steps` [n, 1] of decay alone; `last` [n, 1] is the step they stand at."""
        rate = tf.cast(self.learning_rate, tf.float32)
        return weights * tf.pow(1.0 - rate * self.decoupled_decay, steps), slots

    @property
    def decays(self) -> bool:
        """Whether rows change without a gradient, too."""
        return self.decoupled_decay > 0

    def build(self, var_list: Sequence[tf.Variable], training_rows: Sequence[NDArray[np.int64]] | None = None) -> None:
        """Makes the slots of every table.

        Args:
            var_list: the tables.
            training_rows: for each table, how many training examples read each of its rows; mini-batch aware decay
                needs them.

        Raises:
            ValueError: it needs them, and they are not there, or not one for each row.
        """
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        if self.mini_batch_aware_decay:
            self._shares = self._no_dependency(_shares(var_list, training_rows))
        specs = {**self.slot_specs(), **({_LAST: SlotSpec(per_weight=False)} if self.decays else {})}
        self._shards: dict[tuple[str, str], list[tf.Variable]] = self._no_dependency({})
        self._tables = self._no_dependency(list(var_list))
        # Keras tracks slots for checkpoints in `_variables`.
        self._slots = self._no_dependency(
            [{name: self._add_slot(table, name, spec) for name, spec in specs.items()} for table in var_list]
        )
        self._seeds = [seed_for(number, table.name) for number, table in enumerate(var_list)]

    def slots(self, table: tf.Variable) -> list[tf.Variable]:
        """What it keeps for a table."""
        return list(self._slots[self._number(table)].values())

    def update_step(self, gradient: Gradient, variable: tf.Variable) -> None:
        """One step for one table; of a sparse gradient, whose indices are distinct, only those rows are touched."""
        sparse = isinstance(gradient, tf.IndexedSlices)
        rows = SomeRows(gradient.indices) if sparse else AllRows()
        values = tf.cast(gradient.values if sparse else gradient, tf.float32)
        stored = self._weights(variable, rows, values, self.iterations)
        weights, slots = stored.read(), self._read_slots(variable, rows)
        if self.decays:
            # AdamW decays before it steps, so this step's decay is one of those to make up for.
            weights, slots = self._to_date(weights, slots, this_step=self.decoupled_decay > 0)
        if self.mini_batch_aware_decay:
            if not sparse:
                raise ValueError("mini-batch aware decay has to know which rows a batch reads; this gradient is dense")
            values += self.mini_batch_aware_decay * rows.read(self._shares[self._number(variable)]) * weights
        weights, slots = self.step(weights, values, slots)
        self._write_slots(variable, rows, slots, self.iterations + 1)
        stored.write(weights)

    def flush(self) -> None:
        """Brings all rows up to date with the decay of the steps that they slept through; without decay, does nothing.

        To be called, outside of replicas, before whole tables are read: by exports, masks, norms. It may be called at
        any time: with decoupled decay, training goes on as without it.
        """
        if self.decays:
            for table in self._tables:
                self._distribution_strategy.extended.update(table, self._flush, group=False)

    def _flush(self, variable: tf.Variable) -> None:
        for start in range(0, variable.shape[0], _BLOCK):
            block = tf.range(start, min(start + _BLOCK, variable.shape[0]))
            last = self._read_slots(variable, SomeRows(block))[_LAST]
            rows = SomeRows(tf.boolean_mask(block, tf.squeeze(last, 1) < tf.cast(self.iterations, tf.float32)))
            stored = self._weights(variable, rows, None, -1 - self.iterations)
            weights, slots = self._to_date(stored.read(), self._read_slots(variable, rows), this_step=False)
            self._write_slots(variable, rows, slots, self.iterations)
            stored.write(weights)

    def _to_date(self, weights: tf.Tensor, slots: Slots, this_step: bool) -> tuple[tf.Tensor, Slots]:
        last = slots[_LAST]
        behind = tf.cast(self.iterations, tf.float32) - last
        return self.catch_up(weights, slots, last, behind + 1.0 if this_step else behind)

    def _weights(
        self, variable: tf.Variable, rows: Rows, gradient: tf.Tensor | None, occasion: tf.Tensor | tf.Variable
    ) -> Weights:
        """The rounding of low precisions depends on the table and the step alone: replicas agree, a resumed run too."""
        seed = tf.stack([tf.constant(self._seeds[self._number(variable)], tf.int64), tf.cast(occasion, tf.int64)])
        return weights_of(variable, rows, seed, gradient, self.scale_learning_rate)

    def _read_slots(self, variable: tf.Variable, rows: Rows) -> Slots:
        return {
            name: tf.cast(rows.read(slot), tf.float32) for name, slot in self._slots[self._number(variable)].items()
        }

    def _write_slots(self, variable: tf.Variable, rows: Rows, slots: Slots, now: tf.Tensor | tf.Variable) -> None:
        if self.decays:
            slots = {**slots, _LAST: tf.fill(tf.shape(slots[_LAST]), tf.cast(now, tf.float32))}
        for name, slot in self._slots[self._number(variable)].items():
            rows.write(slot, tf.cast(slots[name], slot.dtype))

    def _number(self, variable: tf.Variable) -> int:
        return int(self._index_dict[self._var_key(variable)])

    def _add_slot(self, table: tf.Variable, name: str, spec: SlotSpec) -> tf.Variable:
        """Keras' `add_variable_from_reference`, for slots of another type than the table's."""
        width = 1
        if spec.per_weight:
            width = table.shape[1] - (SCALE_BYTES if table.dtype == tf.int8 else 0)
        kind = tf.int32 if name == _LAST else tf.float32
        with tf.distribute.get_strategy().extended.colocate_vars_with(table):
            slot = tf.Variable(
                lambda: tf.fill([table.shape[0], width], tf.cast(spec.initial, kind)),
                trainable=False,
                name=f"{name}/{table.name.split(':')[0]}",
            )
        if not hasattr(table, "_sharded_container"):
            self._variables.append(slot)
            return slot
        # The slots of a table that is cut over parameter servers are one variable in a checkpoint, as the table is.
        whole = table._sharded_container()
        shards = self._shards.setdefault((whole._unique_id, name), [])
        shards.append(slot)
        if len(shards) == len(whole.variables):
            self._variables.append(tf.__internal__.distribute.ShardedVariable(shards))
        return slot

    def _clip_gradients(self, grads: Sequence[Gradient]) -> list[Gradient]:
        return list(super()._clip_gradients([deduplicate(gradient) for gradient in grads]))

    def _deduplicate_sparse_grad(self, grads: Sequence[Gradient]) -> list[Gradient]:
        """Keras asks for this after clipping; `_clip_gradients` has done it before."""
        return list(grads)

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes; subclasses add their own."""
        return {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "decoupled_decay": self.decoupled_decay,
            "mini_batch_aware_decay": self.mini_batch_aware_decay,
            "scale_learning_rate": self.scale_learning_rate,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "name": self.name,
        }


def _shares(tables: Sequence[tf.Variable], training_rows: Sequence[NDArray[np.int64]] | None) -> list[tf.Variable]:
    """[V, 1] 1 / n for each row of each table: a function of the data, so it stands in no checkpoint."""
    if training_rows is None or [len(rows) for rows in training_rows] != [table.shape[0] for table in tables]:
        raise ValueError("mini-batch aware decay needs, for each row of each table, the training examples that read it")
    found = []
    for table, rows in zip(tables, training_rows, strict=True):
        share = (1.0 / np.maximum(rows, 1))[:, np.newaxis].astype(np.float32)
        with tf.distribute.get_strategy().extended.colocate_vars_with(table):
            found.append(tf.Variable(share, trainable=False, name=f"share/{table.name.split(':')[0]}"))
    return found
