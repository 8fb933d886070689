"""The optimizers of a model's tables, each table's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers.adagrad import Adagrad, RowwiseAdagrad
from recsys.embeddings.optimizers.config import (
    AdagradConfig,
    CoupledDecay,
    DecoupledDecay,
    LazyAdamConfig,
    MiniBatchAwareDecay,
    TableOptimizerConfig,
)
from recsys.embeddings.optimizers.gradients import Gradient
from recsys.embeddings.optimizers.lazy_adam import LazyAdam
from recsys.embeddings.optimizers.sparse import LearningRate, SparseOptimizer
from recsys.embeddings.rows import Trained


class TableOptimizers(tf.__internal__.tracking.AutoTrackable):
    """One sparse optimizer for each distinct config among the tables', checkpointed as one object; and plain SGD for
    thresholds.

    No `tf.Module`: a Keras model would count the slots of one that it holds among its own weights.

    Args:
        configs: each table's, by the table's name.
        training_rows: of the tables whose decay is mini-batch aware, how many training examples read each row, [V].
        rates: from a config's learning rate to what an optimizer takes; by default it is constant.
    """

    def __init__(
        self,
        configs: Mapping[str, TableOptimizerConfig],
        training_rows: Mapping[str, NDArray[np.int64]] | None = None,
        rates: Callable[[float], LearningRate] = float,
    ) -> None:
        super().__init__()
        self._training_rows = self._no_dependency(dict(training_rows or {}))
        # Named after the first of its tables by name: a checkpoint does not depend on the order of tables.
        named: dict[TableOptimizerConfig, str] = {}
        for table in sorted(configs):
            named.setdefault(configs[table], table)
        self._name_of: dict[str, str] = self._no_dependency({table: named[config] for table, config in configs.items()})
        self.optimizers: dict[str, SparseOptimizer] = {
            name: make_table_optimizer(config, rates) for config, name in named.items()
        }
        self._descents: dict[str, keras.optimizers.Optimizer] = {}

    @classmethod
    def of(
        cls,
        config: EmbeddingsConfig,
        training_rows: Mapping[str, NDArray[np.int64]] | None = None,
        rates: Callable[[float], LearningRate] = float,
    ) -> Self:
        """The optimizers of all tables of a model."""
        return cls({table: config.optimizer_of(table) for table in config.tables}, training_rows, rates)

    def optimizer_of(self, table: str) -> SparseOptimizer:
        """The optimizer of a table; other tables of the same config share it."""
        return self.optimizers[self._name_of[table]]

    def build(self, trained: Sequence[Trained]) -> None:
        """Makes all slots, so that a checkpoint can be restored.

        Raises:
            ValueError: a table's decay is mini-batch aware, and its `training_rows` are not there, or not one a row.
        """
        for name, optimizer in self.optimizers.items():
            own = [each for each in trained if each.sgd is None and self._name_of[each.table] == name]
            optimizer.build([each.variable for each in own], self._cut(own))
        for each in trained:
            if each.sgd is not None:
                self._descents[each.table] = keras.optimizers.SGD(each.sgd, jit_compile=False)
                self._descents[each.table].build([each.variable])

    def _cut(self, trained: Sequence[Trained]) -> list[NDArray[np.int64]]:
        """The training rows of each variable: a table that is cut into shards has its rows in their order."""
        parts, starts = list[NDArray[np.int64]](), dict[str, int]()
        for each in trained:
            start = starts.get(each.table, 0)
            starts[each.table] = start + each.variable.shape[0]
            parts.append(self._training_rows.get(each.table, np.zeros(0, np.int64))[start : starts[each.table]])
        return parts

    def apply(
        self,
        gradients: Sequence[Gradient | None],
        trained: Sequence[Trained],
        skip_gradients_aggregation: bool = False,
    ) -> None:
        """One step of all tables.

        Args:
            gradients: for each of `trained`, of its source; None where a step has none.
            skip_gradients_aggregation: the gradients are already sums over the replicas, as `clip_by_global_norm` gives
                them.
        """
        for name, optimizer in self.optimizers.items():
            pairs = [
                (gradient, each.variable)
                for gradient, each in zip(gradients, trained, strict=True)
                if each.sgd is None and self._name_of[each.table] == name
            ]
            if any(gradient is not None for gradient, _ in pairs):
                optimizer.apply_gradients(pairs, skip_gradients_aggregation=skip_gradients_aggregation)
        for gradient, each in zip(gradients, trained, strict=True):
            if each.sgd is not None and gradient is not None:
                self._descents[each.table].apply_gradients(
                    [(gradient, each.variable)], skip_gradients_aggregation=skip_gradients_aggregation
                )

    def flush(self) -> None:
        """Brings all rows up to date with their decay (see `SparseOptimizer.flush`)."""
        for optimizer in self.optimizers.values():
            optimizer.flush()

    @property
    def variables(self) -> list[tf.Variable]:
        """Slots and step counters of all optimizers."""
        everyone = [*self.optimizers.values(), *self._descents.values()]
        return [variable for optimizer in everyone for variable in optimizer.variables]


def make_table_optimizer(
    config: TableOptimizerConfig, rates: Callable[[float], LearningRate] = float
) -> SparseOptimizer:
    """The Keras optimizer that a config describes; `rates` makes of its learning rate what the optimizer takes."""
    decay, rate = config.decay, rates(config.learning_rate)
    coupled = decay.rate if isinstance(decay, CoupledDecay) else 0.0
    decoupled = decay.rate if isinstance(decay, DecoupledDecay) else 0.0
    mini_batch_aware = decay.rate if isinstance(decay, MiniBatchAwareDecay) else 0.0
    if isinstance(config, LazyAdamConfig):
        return LazyAdam(
            rate,
            config.beta_1,
            config.beta_2,
            config.epsilon,
            decoupled_decay=decoupled,
            coupled_decay=coupled,
            mini_batch_aware_decay=mini_batch_aware,
            scale_learning_rate=config.scale_learning_rate,
        )
    kind = Adagrad if isinstance(config, AdagradConfig) else RowwiseAdagrad
    return kind(
        rate,
        config.initial_accumulator,
        config.epsilon,
        decoupled_decay=decoupled,
        mini_batch_aware_decay=mini_batch_aware,
        scale_learning_rate=config.scale_learning_rate,
    )
