"""Two-tower retrieval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.served import ServedRows
from recsys.embeddings.tables import Vocabularies
from recsys.models.base import Batch, EmbeddingModel, FeatureWeight
from recsys.models.config import TowerConfig, TwoTowerConfig
from recsys.models.layers import MLP
from recsys.objectives.retrieval import RetrievalLoss


class Tower(keras.layers.Layer):
    """Encoded features -> one vector [B, d]."""

    def __init__(
        self,
        config: TowerConfig,
        normalize: bool,
        embeddings: EmbeddingCollection,
        seed: int,
        step: tf.Variable,
        name: str,
    ) -> None:
        super().__init__(name=name, autocast=False)  # raw numbers and ages do not fit into float16
        self._embeddings = embeddings
        self._mlp = MLP(config, config.output_dim, seed, step, f"{name}_mlp")
        self._normalize = normalize
        self._embed = tf.function(
            lambda features, served: self(features, training=False, served=served), reduce_retracing=True
        )

    def call(
        self, features: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None
    ) -> tf.Tensor:
        """Embeds (from `served` rows, by table, if there are any), concatenates, transforms, normalises: float32."""
        return self.transformed(self.concatenated(features, training, served), training)

    def concatenated(
        self, features: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None
    ) -> tf.Tensor:
        """[B, n] the features' vectors side by side, in the order of the embeddings' `layout`."""
        return self._embeddings(features, served=served, training=training).concat()

    def transformed(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, d] float32 what the layers make of the concatenation [B, n], normalised."""
        x = tf.cast(self._mlp(x, training=training), tf.float32)
        return tf.math.l2_normalize(x, -1) if self._normalize else x

    def input_weights(self) -> list[tuple[tf.Variable, tuple[int, ...]]]:
        """The weights with axes along the concatenation, and which those are."""
        return self._mlp.input_weights()

    def vectors(
        self, features: Mapping[str, NDArray], served: Mapping[str, ServedRows] | None = None, block: int = 16_384
    ) -> NDArray[np.float32]:
        """[n, d] vectors of any number of encoded rows, `block` of them at a time."""
        rows = len(next(iter(features.values())))
        parts = [
            self._embed({name: column[start : start + block] for name, column in features.items()}, served).numpy()
            for start in range(0, max(rows, 1), block)
        ]
        return np.concatenate(parts)


class TwoTower(EmbeddingModel):
    """Query and item tower, trained to put an example's item above others.

    Args:
        config: the towers and the loss.
        embeddings: tables, shared by both towers.
        features: what `prepare` knows of every feature.
        catalogue: all items: their positive training events for logQ, their features for what draws items of its own.
        seed: of initial weights and dropout.
        vocabularies: of the training data, for table methods that go by frequency or start from given vectors.
    """

    def __init__(
        self,
        config: TwoTowerConfig,
        embeddings: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        catalogue: Catalogue,
        seed: int = 0,
        vocabularies: Vocabularies | None = None,
    ) -> None:
        super().__init__(embeddings, features, seed, vocabularies)
        self.config = config
        self.query_tower = Tower(config.query, config.normalize, self.embeddings, seed, self.global_step, "query_tower")
        self.item_tower = Tower(config.item, config.normalize, self.embeddings, seed, self.global_step, "item_tower")
        self.objective = RetrievalLoss(
            config.loss,
            catalogue,
            lambda features, training: self.item_tower(features, training=training),
            seed,
            self.global_step,
            config.matryoshka,
            config.normalize,
        )

    def query_vectors(
        self, features: Mapping[str, NDArray], served: Mapping[str, ServedRows] | None = None
    ) -> NDArray[np.float32]:
        """[Q, d] vectors of encoded user, history and context features (from `served` rows, if there are any)."""
        return self.query_tower.vectors(features, served)

    def item_vectors(
        self, features: Mapping[str, NDArray], served: Mapping[str, ServedRows] | None = None
    ) -> NDArray[np.float32]:
        """[N, d] vectors of encoded item features (from `served` rows, if there are any)."""
        return self.item_tower.vectors(features, served)

    def feature_weights(self) -> list[FeatureWeight]:
        """Each tower's first kernel."""
        query = self._feature_weights(("user", "context"), self.query_tower.input_weights())
        return query + self._feature_weights(("item",), self.item_tower.input_weights())

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] the loss of each example's item against others."""
        query = self.query_tower(batch["query"], training=training)
        return self.objective(query, batch["item"], batch["item_index"], batch.get("user_index"), training)
