"""The optimizers of a model's tables, each table's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from recsys._compat import tf
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers.adagrad import Adagrad, RowwiseAdagrad
from recsys.embeddings.optimizers.config import (
    AdagradConfig,
    CoupledDecay,
    LazyAdamConfig,
    TableOptimizerConfig,
)
from recsys.embeddings.optimizers.gradients import Gradient
from recsys.embeddings.optimizers.lazy_adam import LazyAdam
from recsys.embeddings.optimizers.sparse import SparseOptimizer
from recsys.embeddings.rows import Trained


class TableOptimizers(tf.__internal__.tracking.AutoTrackable):
    """One sparse optimizer for each distinct config among the tables', checkpointed as one object.

    No `tf.Module`: a Keras model would count the slots of one that it holds among its own weights.

    Args:
        configs: each table's, by the table's name.
    """

    def __init__(self, configs: Mapping[str, TableOptimizerConfig]) -> None:
        super().__init__()
        # Named after the first of its tables by name: a checkpoint does not depend on the order of tables.
        named: dict[TableOptimizerConfig, str] = {}
        for table in sorted(configs):
            named.setdefault(configs[table], table)
        self._name_of: dict[str, str] = self._no_dependency({table: named[config] for table, config in configs.items()})
        self.optimizers: dict[str, SparseOptimizer] = {
            name: make_table_optimizer(config) for config, name in named.items()
        }

    @classmethod
    def of(cls, config: EmbeddingsConfig) -> Self:
        """The optimizers of all tables of a model."""
        return cls({table: config.optimizer_of(table) for table in config.tables})

    def optimizer_of(self, table: str) -> SparseOptimizer:
        """The optimizer of a table; other tables of the same config share it."""
        return self.optimizers[self._name_of[table]]

    def build(self, trained: Sequence[Trained]) -> None:
        """Makes all slots, so that a checkpoint can be restored."""
        for name, optimizer in self.optimizers.items():
            optimizer.build([each.variable for each in trained if self._name_of[each.table] == name])

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
                if self._name_of[each.table] == name
            ]
            if any(gradient is not None for gradient, _ in pairs):
                optimizer.apply_gradients(pairs, skip_gradients_aggregation=skip_gradients_aggregation)

    def flush(self) -> None:
        """Brings all rows up to date with their decay (see `SparseOptimizer.flush`)."""
        for optimizer in self.optimizers.values():
            optimizer.flush()

    @property
    def variables(self) -> list[tf.Variable]:
        """Slots and step counters of all optimizers."""
        return [variable for optimizer in self.optimizers.values() for variable in optimizer.variables]


def make_table_optimizer(config: TableOptimizerConfig) -> SparseOptimizer:
    """The Keras optimizer that a config describes."""
    coupled = config.decay.rate if isinstance(config.decay, CoupledDecay) else 0.0
    decoupled = config.decay.rate if config.decay and not coupled else 0.0
    if isinstance(config, LazyAdamConfig):
        return LazyAdam(
            config.learning_rate,
            config.beta_1,
            config.beta_2,
            config.epsilon,
            decoupled_decay=decoupled,
            coupled_decay=coupled,
            scale_learning_rate=config.scale_learning_rate,
        )
    kind = Adagrad if isinstance(config, AdagradConfig) else RowwiseAdagrad
    return kind(
        config.learning_rate,
        config.initial_accumulator,
        config.epsilon,
        decoupled_decay=decoupled,
        scale_learning_rate=config.scale_learning_rate,
    )
