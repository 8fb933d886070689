"""What every model here shares: two optimizers, a loss over the global batch, a step counter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys._compat import keras, tf, tfrs
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.bitmap import is_index
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers, clip_by_global_norm
from recsys.embeddings.rows import Trained
from recsys.embeddings.tables import Vocabularies
from recsys.models.precision import MixedLayers

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class FeatureWeight:
    """A weight with axes along the concatenated vectors of features."""

    weight: tf.Variable
    axes: tuple[int, ...]
    layout: tuple[tuple[str, int], ...]
    """(feature, width), in the order of those axes."""


REST = "(rest)"
"""What stands behind the features' vectors in what a weight reads; no feature can be called so."""


def reading(weight: tf.Variable, axes: tuple[int, ...], layout: tuple[tuple[str, int], ...]) -> FeatureWeight:
    """A weight that reads these vectors, and behind them what is left of its width."""
    rest = int(weight.shape[axes[0]]) - sum(width for _, width in layout)
    return FeatureWeight(weight, axes, (*layout, (REST, rest)) if rest else layout)


class EmbeddingModel(tfrs.Model):
    """A TFRS model whose tables are trained by a sparse optimizer and whose dense weights by another.

    Subclasses implement `example_losses`. The loss is the mean over the *global* batch, so that replicas' gradients add
    up to those of one process.

    Args:
        embeddings: tables, and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: of initial weights and dropout.
        vocabularies: of the training data, for table methods that go by frequency or start from given vectors.
    """

    def __init__(
        self,
        embeddings: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        seed: int,
        vocabularies: Vocabularies | None,
    ) -> None:
        super().__init__()
        # Named apart from Keras' private counter: dropout masks depend on it, so it belongs to the checkpoint.
        self.global_step = tf.Variable(
            0,
            trainable=False,
            dtype=tf.int64,
            name="global_step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.embeddings = EmbeddingCollection(embeddings, features, seed, vocabularies, self.global_step)
        self.loss_metric = keras.metrics.Mean("loss")
        self._xla = False

    def compile(
        self,
        table_optimizers: TableOptimizers,
        dense_optimizer: keras.optimizers.Optimizer,
        global_batch: float,
        clip_norm: float | None = None,
        xla: bool = False,
    ) -> None:
        """Sets the optimizers, the size of the batch over all replicas, the greatest norm of all gradients, and whether
        XLA compiles what training does between tables and logits (of a ranker).
        """
        super().compile(optimizer=dense_optimizer)
        self.table_optimizers = table_optimizers
        self._global_batch, self._clip_norm, self._xla = global_batch, clip_norm, xla

    def build_from(self, batch: Batch) -> None:
        """Makes all variables, the optimizers' too, from any small batch: a checkpoint can then be restored.

        Layers made for a mixed policy (`precision.made_for`) from now on follow it in `train_step` alone.
        """
        self.example_losses(batch, training=False)
        self._mixed_layers = MixedLayers(self)
        self.table_optimizers.build(self._trained_by_tables())
        self.optimizer.build(self.dense_variables())

    def _trained_by_tables(self) -> list[Trained]:
        """What the tables' optimizers train: rows, and thresholds."""
        return [*self.embeddings.trained(), *self.embeddings.thresholds()]

    def dense_variables(self) -> list[tf.Variable]:
        """What the dense optimizer trains: all trainable variables that no sparse optimizer has."""
        sparse = {id(trained.source) for trained in self._trained_by_tables()}
        return [variable for variable in self.trainable_variables if id(variable) not in sparse]

    def feature_weights(self) -> list[FeatureWeight]:
        """The weights that have a part for each feature."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """`table_parameters`, `dense_parameters` and `table_bytes` of the model."""
        tables = [weight for table in self.embeddings.tables.values() for weight in table.weights]
        inside = {id(weight) for weight in tables}
        dense = [variable for variable in self.trainable_variables if id(variable) not in inside]
        return {
            "table_parameters": sum(int(np.prod(weight.shape)) for weight in tables if not is_index(weight)),
            "dense_parameters": sum(int(np.prod(weight.shape)) for weight in dense),
            "table_bytes": sum(int(np.prod(weight.shape)) * weight.dtype.size for weight in tables),
        }

    def training_metrics(self) -> list[keras.metrics.Metric]:
        """What is summed up over an epoch of training; their sums are part of every checkpoint."""
        return [self.loss_metric]

    def training_logs(self) -> dict[str, float]:
        """The values of `training_metrics` in the epoch so far, but for those that are not defined."""
        found: dict[str, float] = {}
        for metric in self.training_metrics():
            result = metric.result()
            values = result if isinstance(result, dict) else {metric.name: result}
            found |= {name: float(value) for name, value in values.items()}
        return {name: value for name, value in found.items() if name == "loss" or not math.isnan(value)}

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] the loss of each example, before weighting; in training, also counted by `training_metrics`."""
        raise NotImplementedError

    def regularization(self, batch: Batch) -> tf.Tensor | None:
        """This replica's share of what training adds to the loss; None where it adds nothing."""
        return None

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """This replica's share of the weighted mean loss over the global batch, Σ w_i loss_i / B, and of the tables'
        penalty."""
        losses = self.example_losses(inputs, training) * inputs["weight"]
        self.loss_metric.update_state(losses)
        loss = tf.reduce_sum(losses) / self._global_batch
        added = self.regularization(inputs) if training else None
        if added is not None:
            loss += added
        penalty = self.embeddings.penalty()
        if penalty is None:
            return loss
        return loss + penalty / tf.distribute.get_strategy().num_replicas_in_sync

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """One step of all optimizers."""
        tables, dense = self._trained_by_tables(), self.dense_variables()
        with tf.GradientTape() as tape, self._mixed_layers.mixed():
            loss = self.compute_loss(inputs, training=True)
        gradients = tape.gradient(loss, [trained.source for trained in tables] + dense)
        summed = self._clip_norm is not None
        if self._clip_norm is not None:
            gradients, _ = clip_by_global_norm(gradients, self._clip_norm)
        self.table_optimizers.apply(gradients[: len(tables)], tables, skip_gradients_aggregation=summed)
        if dense:
            pairs = zip(gradients[len(tables) :], dense, strict=True)
            self.optimizer.apply_gradients(pairs, skip_gradients_aggregation=summed)
        self.global_step.assign_add(1)
        return {"loss": self.loss_metric.result()}
