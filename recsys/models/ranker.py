"""Pointwise ranking."""

from __future__ import annotations

from collections.abc import Mapping

from recsys._compat import tf
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.models.base import Batch, EmbeddingModel
from recsys.models.config import RankerConfig
from recsys.models.layers import MLP


class Ranker(EmbeddingModel):
    """Embeddings -> MLP -> one logit, trained by binary cross-entropy on `label`.

    Args:
        config: the MLP.
        embeddings: tables, and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: of initial weights and dropout.
    """

    def __init__(
        self, config: RankerConfig, embeddings: EmbeddingsConfig, features: Mapping[str, FeatureInfo], seed: int = 0
    ) -> None:
        super().__init__(embeddings, features, seed)
        self.config = config
        self._mlp = MLP(config.mlp, 1, seed, self.global_step, "ranker_mlp")
        self.score = tf.function(lambda batch: self.logits(batch), reduce_retracing=True)

    def logits(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """[B] log-odds of a positive label."""
        vectors = self.embeddings({**batch["query"], **batch["item"]})
        return tf.squeeze(self._mlp(tf.concat(list(vectors.values()), -1), training=training), -1)

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] binary cross-entropy of each example."""
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=batch["label"], logits=self.logits(batch, training))
