"""What every model here shares: two optimizers, a loss over the global batch, a step counter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys._compat import keras, tf, tfrs
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.tables import Vocabularies

Batch = dict[str, tf.Tensor]


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
        self.embeddings = EmbeddingCollection(embeddings, features, seed, vocabularies)
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
        self.table_optimizer.build([trained.variable for trained in self.embeddings.trained()])
        self.optimizer.build(self.dense_variables())

    def dense_variables(self) -> list[tf.Variable]:
        """What the dense optimizer trains: all trainable variables that no sparse optimizer has."""
        sparse = {id(trained.source) for trained in self.embeddings.trained()}
        return [variable for variable in self.trainable_variables if id(variable) not in sparse]

    def sizes(self) -> dict[str, int]:
        """`table_parameters`, `dense_parameters` and `table_bytes` of the model."""
        tables = [weight for table in self.embeddings.tables.values() for weight in table.weights]
        inside = {id(weight) for weight in tables}
        dense = [variable for variable in self.trainable_variables if id(variable) not in inside]
        return {
            "table_parameters": sum(int(np.prod(weight.shape)) for weight in tables),
            "dense_parameters": sum(int(np.prod(weight.shape)) for weight in dense),
            "table_bytes": sum(int(np.prod(weight.shape)) * weight.dtype.size for weight in tables),
        }

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
        tables, dense = self.embeddings.trained(), self.dense_variables()
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
        gradients = tape.gradient(loss, [trained.source for trained in tables] + dense)
        variables = [trained.variable for trained in tables]
        self.table_optimizer.apply_gradients(zip(gradients[: len(tables)], variables, strict=True))
        if dense:
            self.optimizer.apply_gradients(zip(gradients[len(tables) :], dense, strict=True))
        self.global_step.assign_add(1)
        return {"loss": self.loss_metric.result()}
