"""Pointwise ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from recsys._compat import tf
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.served import ServedRows
from recsys.embeddings.tables import Vocabularies
from recsys.interactions.cross import CrossNetwork
from recsys.models.base import Batch, EmbeddingModel, FeatureWeight
from recsys.models.config import RankerConfig
from recsys.models.layers import MLP
from recsys.schema.config import Role


class Ranker(EmbeddingModel):
    """Embeddings -> interaction -> MLP -> one logit, trained by binary cross-entropy on `label`.

    Args:
        config: the interaction, if any, and the MLP.
        embeddings: tables, and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: of initial weights and dropout.
        vocabularies: of the training data, for table methods that go by frequency or start from given vectors.
    """

    def __init__(
        self,
        config: RankerConfig,
        embeddings: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        seed: int = 0,
        vocabularies: Vocabularies | None = None,
    ) -> None:
        super().__init__(embeddings, features, seed, vocabularies)
        self.config = config
        self._cross = CrossNetwork(config.interaction, seed, "ranker_cross") if config.interaction else None
        self._mlp = MLP(config.mlp, 1, seed, self.global_step, "ranker_mlp")
        self._score = tf.function(lambda batch, served: self.logits(batch, served=served), reduce_retracing=True)

    def logits(self, batch: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None) -> tf.Tensor:
        """[B] log-odds of a positive label (from `served` rows, by table, if there are any)."""
        x = self.embeddings({**batch["query"], **batch["item"]}, served=served).concat()
        if self._cross is not None:
            x = self._cross(x)
        return tf.cast(tf.squeeze(self._mlp(x, training=training), -1), tf.float32)

    def score(self, batch: Batch, served: Mapping[str, ServedRows] | None = None) -> tf.Tensor:
        """[B] `logits` without dropout, as a graph that is traced once."""
        return self._score(batch, served)

    def feature_weights(self) -> list[FeatureWeight]:
        """The cross network's, whose output is as wide as its input, and the MLP's first kernel."""
        crossed = self._cross.input_weights() if self._cross is not None else []
        return self._feature_weights(get_args(Role), [*crossed, *self._mlp.input_weights()])

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] binary cross-entropy of each example."""
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=batch["label"], logits=self.logits(batch, training))
