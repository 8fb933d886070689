"""Two-tower retrieval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.embedded import Embedded
from recsys.embeddings.served import ServedRows
from recsys.embeddings.tables import Vocabularies
from recsys.models.base import Batch, EmbeddingModel, FeatureWeight, reading
from recsys.models.config import QueryTowerConfig, TowerConfig, TwoTowerConfig
from recsys.models.history import HistoryEncoder, Moments
from recsys.models.layers import MLP
from recsys.objectives.distillation import Distillation, Teacher
from recsys.objectives.retrieval import RetrievalLoss
from recsys.objectives.ssl import SSLRegularizer
from recsys.schema.config import Role

BLOCK = 16_384
"""Rows that a tower embeds at a time, where no gradient is asked for."""
OF_EXAMPLES = ("item", "item_index", "weight")
"""What a batch of windows holds for each of their examples, beside the context's features."""


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
        self._normalize, self._block = normalize, BLOCK
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
        self,
        features: Mapping[str, NDArray],
        served: Mapping[str, ServedRows] | None = None,
        block: int | None = None,
    ) -> NDArray[np.float32]:
        """[n, d] vectors of any number of encoded rows, `block` of them at a time."""
        rows, block = len(next(iter(features.values()))), block or self._block
        parts = [
            self._embed({name: column[start : start + block] for name, column in features.items()}, served).numpy()
            for start in range(0, max(rows, 1), block)
        ]
        return np.concatenate(parts)


class QueryTower(Tower):
    """A tower that may read histories by an encoder; its state stands behind the vectors of the other features.

    Args:
        config: of the tower.
        normalize: whether vectors have length 1.
        embeddings: tables.
        seed: of initial weights and dropout.
        step: of the training.
    """

    def __init__(
        self, config: QueryTowerConfig, normalize: bool, embeddings: EmbeddingCollection, seed: int, step: tf.Variable
    ) -> None:
        super().__init__(config, normalize, embeddings, seed, step, "query_tower")
        self._history = None
        if config.sequence is not None:
            kept = embeddings.kept_sequences()
            length = min(kept.values())  # one length, says `ExperimentConfig`
            self._histories = list(kept)
            self._history = HistoryEncoder(config.sequence, length, seed, step, "query_history")
            self._block = BLOCK // 8  # several [T, d] for each

    def concatenated(
        self, features: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None
    ) -> tf.Tensor:
        """[B, n] the features' vectors side by side, in the order of the embeddings' `layout`, then the state at the
        end of the history.
        """
        return self._with_history(self._embeddings(features, served=served, training=training), None, training)

    def at_moments(self, features: Batch, moments: Moments, training: bool = False) -> tf.Tensor:
        """[n, d] vectors of users at moments of their histories, which are gone through once.

        Args:
            features: of users and histories [B], and of the context [n].
            moments: whose, and when.
            training: drops numbers.
        """
        embedded = self._embeddings.at_moments(features, moments.row, training)
        return self.transformed(self._with_history(embedded, moments, training), training)

    def _with_history(self, embedded: Embedded, moments: Moments | None, training: bool) -> tf.Tensor:
        parts = [embedded.concat()] if embedded.order else []
        if self._history is not None:
            kept = [embedded.sequences[name] for name in self._histories]
            events = tf.concat([each.values for each in kept], -1)
            parts.append(self._history(events, kept[0].mask, moments, training=training))
        return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


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
        self.query_tower = QueryTower(config.query, config.normalize, self.embeddings, seed, self.global_step)
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
        self._distillation: Distillation | None = None
        self._context = [name for name, info in features.items() if info.role == "context"]
        self.ssl: SSLRegularizer | None = None
        if config.ssl is not None and config.ssl.weight:
            layout = self.embeddings.layout("item")
            step = self.global_step
            self.ssl = SSLRegularizer(config.ssl, catalogue, self.item_tower, layout, features, seed, step)

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
        """Each tower's first kernel, by the features and the history's state that it reads, and what stands in views of
        items for features.
        """
        item = self.item_tower.input_weights()
        if self.ssl is not None and self.ssl.defaults is not None:
            item.append((self.ssl.defaults, (0,)))
        query = [reading(*pair, self._layout("user", "context")) for pair in self.query_tower.input_weights()]
        return query + [reading(*pair, self._layout("item")) for pair in item]

    def _layout(self, *roles: Role) -> tuple[tuple[str, int], ...]:
        return tuple(self.embeddings.layout(*roles))

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """As for all models; of windows, over their examples."""
        return super().compute_loss(self._by_example(inputs), training)

    def regularization(self, batch: Batch) -> tf.Tensor | None:
        """The weighted loss of two views of items."""
        if self.ssl is None:
            return None
        return self.ssl.config.weight * self.ssl(batch["item"], batch["item_index"])

    def training_metrics(self) -> list[keras.metrics.Metric]:
        """The loss and, with a regulariser, its own before it is weighted."""
        return [*super().training_metrics(), *([] if self.ssl is None else [self.ssl.loss_metric])]

    def example_losses(self, batch: Batch, training: bool) -> tf.Tensor:
        """[b] the loss of each example's item against others; of a batch of windows, of each example in them."""
        batch = self._by_example(batch)
        if "moments" in batch:
            query = self.query_tower.at_moments(batch["query"], batch["moments"], training)
        else:
            query = self.query_tower(batch["query"], training=training)
        losses = self.objective(query, batch["item"], batch["item_index"], batch.get("user_index"), training)
        if self._distillation is None or not training:
            return losses
        return losses + self._distillation(batch["item"], batch["item_index"], training)

    def taught_by(self, teacher: Teacher) -> None:
        """From now on the item tower also learns what the teacher knows, as `config.item.distill` says."""
        config = self.config.item.distill
        assert config is not None
        infos = {name: self.embeddings.features[name] for name in config.unknown}
        unknown = {name: info.oov_rows for name, info in infos.items() if isinstance(info, CategoricalInfo)}
        self._distillation = Distillation(
            teacher, config.weight, unknown, lambda item, training: self.item_tower(item, training=training)
        )

    def _by_example(self, batch: Batch) -> Batch:
        """A batch of windows as one of their n examples, without what fills up its rows: items, users, context and
        weights [n], and `moments` in the histories of the users [B]. A batch of examples stays as it is.
        """
        if "place" not in batch:
            return batch
        where = tf.where(batch["place"] >= 0)
        row = tf.cast(where[:, 0], tf.int32)
        kept = {key: tf.nest.map_structure(lambda v: tf.gather_nd(v, where), batch[key]) for key in OF_EXAMPLES}
        context = {name: tf.gather_nd(v, where) for name, v in batch["query"].items() if name in self._context}
        return {
            **kept,
            "user_index": tf.gather(batch["user_index"], row),
            "query": batch["query"] | context,
            "moments": Moments(row, tf.gather_nd(batch["place"], where)),
        }
