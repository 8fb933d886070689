"""What every model here shares: two optimizers, a loss over the global batch, a step counter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys._compat import keras, tf, tfrs
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig

Batch = dict[str, tf.Tensor]


class EmbeddingModel(tfrs.Model):
    """A TFRS model whose tables are trained by a sparse optimizer and whose dense weights by another.

    Subclasses implement `example_losses`. The loss is the mean over the *global* batch, so that replicas' gradients add
    up to those of one process.

    Args:
        embeddings: tables, and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: of initial weights and dropout.
    """

    def __init__(self, embeddings: EmbeddingsConfig, features: Mapping[str, FeatureInfo], seed: int) -> None:
        super().__init__()
        self.embeddings = EmbeddingCollection(embeddings, features, seed)
        # Named apart from Keras' private counter: dropout masks depend on it, so it belongs to the checkpoint.
        self.global_step = tf.Variable(
            0,
            trainable=False,
            dtype=tf.int64,
            name="global_step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.loss_metric = keras.metrics.Mean("loss")

    def compile(
        self,
        table_optimizer: keras.optimizers.Optimizer,
        dense_optimizer: keras.optimizers.Optimizer,
        global_batch: int,
    ) -> None:
        """Sets both optimizers and the size of the batch over all replicas."""
        super().compile(optimizer=dense_optimizer)
        self.table_optimizer = table_optimizer
        self._global_batch = global_batch

    def build_from(self, batch: Batch) -> None:
        """Makes all variables, the optimizers' too, from any small batch: a checkpoint can then be restored."""
        self.example_losses(batch, training=False)
        self.table_optimizer.build(self.embeddings.table_variables())
        self.optimizer.build(self.dense_variables())

    def dense_variables(self) -> list[tf.Variable]:
        """Trainable variables that are no tables."""
        tables = {id(variable) for variable in self.embeddings.table_variables()}
        return [variable for variable in self.trainable_variables if id(variable) not in tables]

    def sizes(self) -> dict[str, int]:
        """`table_parameters`, `dense_parameters` and `table_bytes` of the model."""
        count = {
            kind: sum(int(np.prod(v.shape)) for v in variables)
            for kind, variables in (("table", self.embeddings.table_variables()), ("dense", self.dense_variables()))
        }
        table_bytes = sum(int(np.prod(v.shape)) * v.dtype.size for v in self.embeddings.table_variables())
        return {"table_parameters": count["table"], "dense_parameters": count["dense"], "table_bytes": table_bytes}

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] the loss of each example, before weighting."""
        raise NotImplementedError

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """This replica's share of the weighted mean loss over the global batch: Σ w_i loss_i / B."""
        losses = self.example_losses(inputs, training) * inputs["weight"]
        self.loss_metric.update_state(losses)
        return tf.reduce_sum(losses) / self._global_batch

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """One step of both optimizers."""
        tables, dense = self.embeddings.table_variables(), self.dense_variables()
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
        gradients = tape.gradient(loss, tables + dense)
        self.table_optimizer.apply_gradients(zip(gradients[: len(tables)], tables, strict=True))
        if dense:
            self.optimizer.apply_gradients(zip(gradients[len(tables) :], dense, strict=True))
        self.global_step.assign_add(1)
        return {"loss": self.loss_metric.result()}
