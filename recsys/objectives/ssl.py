"""Self-supervised regularisation of an item tower (Yao et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import MISSING, CategoricalInfo, FeatureInfo, FingerprintInfo
from recsys.embeddings.seeds import seed_for
from recsys.objectives.config import SSLConfig
from recsys.objectives.draws import Draws, of_all_replicas, own_rows, replicas
from recsys.objectives.mutual_information import groups, membership, mutual_information
from recsys.objectives.retrieval import softmax

Features = dict[str, tf.Tensor]


class ItemTower(Protocol):
    """What the regulariser asks of the item tower: its two halves."""

    def concatenated(self, features: Features, training: bool = False) -> tf.Tensor:
        """[n, w] the features' vectors side by side."""

    def transformed(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[n, d] float32 what the layers make of them."""


class SSLRegularizer(tf.Module):
    """Two views of an item shall be nearer to each other than to views of other items.

    Items x_i are drawn uniformly from the catalogue, whether anybody has had them or not. Each view replaces the
    vectors of some features by learned default vectors, and the other view those of all others; both go through the
    same tables and layers:

        L_self = -1/N Σ_i log( exp(s(z_i, z'_i) / t) / Σ_j exp(s(z_i, z'_j) / t) ),   s the cosine

    A second view of the same item (it has been drawn twice) has probability exactly 0.

    Which features: `random`, half of them (RFM); `correlated`, a feature drawn uniformly in each step and the k // 2
    that tell most of it (CFM), so that what is left must not be guessed from a twin; `none`, no feature: then the views
    are one, and the loss only spreads the items' vectors out.

    Args:
        config: masks, items, temperature.
        catalogue: all items.
        tower: the item tower.
        layout: (feature, width) along its concatenation.
        features: what `prepare` knows of them.
        seed: of the draws.
        step: of the training.
    """

    def __init__(
        self,
        config: SSLConfig,
        catalogue: Catalogue,
        tower: ItemTower,
        layout: Sequence[tuple[str, int]],
        features: Mapping[str, FeatureInfo],
        seed: int,
        step: tf.Variable,
    ) -> None:
        super().__init__(name="ssl_regularizer")
        self.config, self._catalogue = config, catalogue
        self._concatenated, self._transformed = tower.concatenated, tower.transformed
        self._items, self._masks = Draws(seed, "ssl_items", step), Draws(seed, "ssl_masks", step)
        self.names = [name for name, _ in layout]
        self._several = [name for name in self.names if _holds_several(features[name])]
        self._feature_of = tf.constant(np.repeat(np.arange(len(layout)), [width for _, width in layout]), tf.int32)
        self.loss_metric = keras.metrics.Mean("ssl_loss")
        self.defaults: tf.Variable | None = None
        if config.augmentation != "none":
            start = tf.random.stateless_uniform(
                self._feature_of.shape, [seed_for(seed, "ssl_defaults"), 0], -0.05, 0.05
            )
            self.defaults = tf.Variable(start, name="ssl_defaults")
        if config.augmentation == "correlated":
            self._outside, self._groups = self._correlated(features)

    def __call__(self, item: Features, item_index: tf.Tensor, training: bool = True) -> tf.Tensor:
        """This replica's share of L_self over the global batch.

        Args:
            item: features of the training examples' items; read where `items` is `training`.
            item_index: [b] int32 which they are.
            training: whether layers drop out.
        """
        if self.config.items == "catalogue":
            rows = self.config.batch_size or tf.shape(item_index)[0] * replicas()
            item_index = own_rows(self._items.items([rows], self._catalogue.size))
            item = self._catalogue.features(item_index)
        losses = self.losses(item, item_index, self.masks(), training)
        self.loss_metric.update_state(losses)
        return tf.reduce_sum(losses) / tf.cast(tf.shape(losses)[0] * replicas(), tf.float32)

    def masks(self) -> tf.Tensor | None:
        """[2, k] bool: which features the step's two views lack; None where they lack none."""
        count = len(self.names)
        if self.config.augmentation == "none":
            return None
        if self.config.augmentation == "random":
            order = tf.argsort(tf.random.stateless_uniform([count], self._masks.seed("order")))
            first = tf.math.invert_permutation(order) < count // 2
        else:
            drawn = tf.random.stateless_uniform([], self._masks.seed("seed"), maxval=len(self._groups), dtype=tf.int32)
            coin = tf.random.stateless_uniform([], self._masks.seed("coin")) < 0.5
            first = tf.gather(self._groups, drawn) | (self._outside & coin)
        return tf.stack([first, ~first])

    def losses(
        self, item: Features, item_index: tf.Tensor, masked: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        """[n] of this replica's items, each against the second views of the global batch's.

        Args:
            item: their encoded features.
            item_index: [n] int32 which they are.
            masked: [2, k] bool as `masks` has it.
            training: whether layers drop out.
        """
        one, other = self._views(item, masked, training)
        index = of_all_replicas(item_index)
        scores = tf.matmul(one, of_all_replicas(other), transpose_b=True) / self.config.temperature
        scores = tf.where(tf.equal(item_index[:, tf.newaxis], index), -float("inf"), scores)
        return softmax(tf.reduce_sum(one * other, -1) / self.config.temperature, scores)

    def _views(self, item: Features, masked: tf.Tensor | None, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """[n, d] each, of length 1: both through the layers at once, so that these drop other units."""
        if masked is None:
            z = tf.math.l2_normalize(self._transformed(self._concatenated(item, training), training), -1)
            return z, z
        if self.config.value_dropout and training:
            x = self._concatenated(self._without_some_values(item), training)
        else:
            x = tf.tile(self._concatenated(item, training), [2, 1])
        rows = tf.shape(x)[0] // 2
        columns = tf.repeat(tf.gather(masked, self._feature_of, axis=1), rows, axis=0)
        x = tf.where(columns, tf.cast(self.defaults, x.dtype), x)
        z = tf.math.l2_normalize(self._transformed(x, training), -1)
        return z[:rows], z[rows:]

    def _without_some_values(self, item: Features) -> Features:
        """Both views' features [2n, ...], each value of those with several gone with the probability `value_dropout`,
        in each view by itself.
        """
        found = {name: tf.concat([column, column], 0) for name, column in item.items()}
        for name in self._several:
            rows, width = tf.shape(item[name])[0], item[name].shape[1]
            seed = self._masks.seed(f"values/{name}")
            drawn = own_rows(tf.random.stateless_uniform([rows * replicas(), 2 * width], seed))
            kept = tf.concat(tf.split(drawn, 2, axis=1), 0) >= self.config.value_dropout
            found[name] = tf.where(kept, found[name], tf.constant(MISSING, found[name].dtype))
        return found

    def _correlated(self, features: Mapping[str, FeatureInfo]) -> tuple[tf.Tensor, tf.Tensor]:
        """[k] bool which features stand outside the groups, and [g, k] which ones each seed masks."""
        outside = set(self._catalogue.ids) if self.config.ids == "excluded" else set()
        inside = [at for at, name in enumerate(self.names) if name not in outside]
        columns = [membership(self._catalogue.columns[self.names[at]], features[self.names[at]]) for at in inside]
        found: NDArray[np.bool_] = np.zeros((len(inside), len(self.names)), bool)
        found[:, inside] = groups(mutual_information(columns, normalized=self.config.ids == "normalized"))
        return tf.constant([name in outside for name in self.names]), tf.constant(found)


def _holds_several(info: FeatureInfo) -> bool:
    return isinstance(info, CategoricalInfo | FingerprintInfo) and info.max_length is not None
