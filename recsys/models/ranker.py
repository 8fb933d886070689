"""Pointwise ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from recsys._compat import keras, tf
from recsys.data.config import MAIN_LABEL
from recsys.data.dataset import FeatureInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.embedded import Embedded
from recsys.embeddings.served import ServedRows
from recsys.embeddings.tables import Vocabularies
from recsys.interactions.arm_net import ARMNet
from recsys.interactions.autoint import AutoInt
from recsys.interactions.build import make_cross, make_field_interaction
from recsys.interactions.config import AttentionConfig, AutoIntConfig, CrossConfig
from recsys.models.base import Batch, EmbeddingModel, FeatureWeight, reading
from recsys.models.config import RankerConfig
from recsys.models.heads import Heads, LinearHeads, known_losses, unbiased
from recsys.models.layers import MLP
from recsys.models.streaming import StreamingRanking
from recsys.models.target_history import TargetHistory
from recsys.objectives.pointwise import log_odds, pointwise_loss
from recsys.schema.config import Role


class Ranker(EmbeddingModel):
    """Embeddings -> what the history says of the candidate -> interaction -> MLP -> one logit, trained on `label`; with
    heads, one logit for each of the labels, of which `label` ranks.

    Args:
        config: the sequence layer and the interaction, if any, the MLP, heads and losses.
        embeddings: tables, and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: of initial weights and dropout.
        vocabularies: of the training data, for table methods that go by frequency or start from given vectors.
        known: the share of the training examples whose further label is known, by label; 1 where left out.
    """

    def __init__(
        self,
        config: RankerConfig,
        embeddings: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        seed: int = 0,
        vocabularies: Vocabularies | None = None,
        known: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(embeddings, features, seed, vocabularies)
        self.config = config
        self.heads = tuple(config.heads) or (MAIN_LABEL,)
        self._known = dict(known or {})
        self._history = None
        if config.sequence is not None:
            repeats = _repeats(embeddings, features)
            decoupled = any(embeddings.features[name].attention_table is not None for name in repeats)
            self._history = TargetHistory(config.sequence, repeats, decoupled, seed, "ranker_history")
        self._cross, self._fields = None, None
        match config.interaction:
            case None:
                pass
            case CrossConfig():
                self._cross = make_cross(config.interaction, seed, "ranker_cross")
            case interaction:
                self._fields = make_field_interaction(interaction, seed, self.global_step, f"ranker_{interaction.kind}")
        self._linear = None
        if config.heads:
            self._mlp: MLP | Heads = Heads(
                config.heads, config.mlp, config.experts, seed, self.global_step, "ranker_mlp"
            )
        else:
            self._mlp = MLP(config.mlp, 1, seed, self.global_step, "ranker_mlp")
        if config.structure == "parallel" and config.heads:
            self._linear = LinearHeads(config.heads, seed, "ranker_linear")
        elif config.structure == "parallel":
            self._linear = unbiased(1, seed, "ranker_linear")
        self._auxiliary_weight = config.sequence.auxiliary if isinstance(config.sequence, AttentionConfig) else 0.0
        self._auxiliary = (
            MLP(config.mlp, 1, seed, self.global_step, "ranker_auxiliary") if self._auxiliary_weight else None
        )
        self._streaming = StreamingRanking()
        self._score = tf.function(lambda batch, served: self.logits(batch, served=served), reduce_retracing=True)
        self._scores = tf.function(lambda batch, served: self.head_logits(batch, served=served), reduce_retracing=True)

    def logits(self, batch: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None) -> tf.Tensor:
        """[B] log-odds of a positive label (from `served` rows, by table, if there are any)."""
        return self.head_logits(batch, training, served)[MAIN_LABEL]

    def head_logits(
        self, batch: Batch, training: bool = False, served: Mapping[str, ServedRows] | None = None
    ) -> dict[str, tf.Tensor]:
        """As `logits`, of each head."""
        return self._log_odds(self._both_logits(batch, training, served)[0])

    def _log_odds(self, trained: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of each head [B], from the logits that the losses train [B, H]."""
        columns = zip(self.heads, tf.unstack(trained, len(self.heads), -1), strict=True)
        return {name: log_odds(self.config.loss_of(name), column) for name, column in columns}

    def _both_logits(
        self, batch: Batch, training: bool, served: Mapping[str, ServedRows] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        embedded = self.embeddings({**batch["query"], **batch["item"]}, served=served, training=training)
        return self._of_vectors(embedded, training)

    def _of_vectors(self, embedded: Embedded, training: bool) -> tuple[tf.Tensor, tf.Tensor | None]:
        """[B, H] the logits that the losses train, and [B] those of the auxiliary head over the whole history, if there
        is one.
        """
        if self._history is None:
            return self._read_out(embedded, None, training), None
        history, whole = self._history(embedded, training=training)
        trained, auxiliary = self._read_out(embedded, history, training), None
        if self._auxiliary is not None:
            auxiliary = tf.cast(tf.squeeze(self._auxiliary(whole, training=training), -1), tf.float32)
        return trained, auxiliary

    def _read_out(self, embedded: Embedded, history: tf.Tensor | None, training: bool) -> tf.Tensor:
        """[B, H] the logits that the losses train, from the features and what the history says of the candidate."""
        vectors = [embedded.concat()]
        if history is not None:
            vectors.append(tf.cast(history, vectors[0].dtype))
        crossed = self._interact(embedded, vectors, training)
        if self._linear is not None:
            direct = tf.cast(self._mlp(tf.concat(vectors, -1), training=training), tf.float32)
            return direct + tf.cast(self._linear(tf.concat(crossed, -1)), tf.float32)
        return tf.cast(self._mlp(tf.concat(crossed, -1), training=training), tf.float32)

    def candidate_logits(self, batch: Batch, served: Mapping[str, ServedRows] | None = None) -> dict[str, tf.Tensor]:
        """As `head_logits`, of K items for one user, [K]: what does not depend on the item is worked out once.

        Args:
            batch: `query` of one user, `item` of K items.
            served: by table, rows to read in place of the trained ones.
        """
        embedded = self.embeddings.candidates(batch["query"], batch["item"], served)
        history = None if self._history is None else self._history.of_candidates(embedded)
        return self._log_odds(self._read_out(embedded, history, training=False))

    def pair_logits(
        self, batch: Batch, query_of: tf.Tensor, served: Mapping[str, ServedRows] | None = None
    ) -> dict[str, tf.Tensor]:
        """As `head_logits`, of K items for U users, [K]: several requests at once.

        Args:
            batch: `query` of U users, `item` of K items.
            query_of: [K] whose candidate each item is.
            served: by table, rows to read in place of the trained ones.
        """
        embedded = self.embeddings.pairs(batch["query"], batch["item"], query_of, served)
        return self._log_odds(self._of_vectors(embedded, training=False)[0])

    def _interact(self, embedded: Embedded, vectors: list[tf.Tensor], training: bool) -> list[tf.Tensor]:
        """What the interaction makes of the features and the history; without one, these themselves."""
        if self._cross is not None:
            return [self._cross(tf.concat(vectors, -1))]
        if self._fields is not None:
            return [self._fields(embedded.fields(), training=training), *vectors[1:]]
        return vectors

    def score(self, batch: Batch, served: Mapping[str, ServedRows] | None = None) -> tf.Tensor:
        """[B] `logits` without dropout, as a graph that is traced once."""
        return self._score(batch, served)

    def scores(self, batch: Batch, served: Mapping[str, ServedRows] | None = None) -> dict[str, tf.Tensor]:
        """As `score`, of each head."""
        return self._scores(batch, served)

    def looks(self, batch: Batch, served: Mapping[str, ServedRows] | None = None) -> dict[str, tf.Tensor]:
        """What the layers weigh by, float32; nothing where none of them weighs anything.

        `attention` [B, layers, heads, F, F], of AutoInt: how much each field (row) heeds each field (column);
        `gates` [B, heads, neurons, F], of ARM-Net: how much each neuron heeds each field; both sum to 1 over the last
        axis, and their fields are `field_names`. `history` [B, T]: what each event weighs in the history's vector.
        """
        embedded = self.embeddings({**batch["query"], **batch["item"]}, served=served)
        found = {}
        if isinstance(self._fields, AutoInt):
            found["attention"] = self._fields.attention_maps(embedded.fields())
        if isinstance(self._fields, ARMNet):
            found["gates"] = self._fields.gates(embedded.fields())
        if self._history is not None:
            found["history"] = self._history.weigh(embedded)
        return found

    @property
    def weighs(self) -> bool:
        """Whether `looks` finds anything."""
        return isinstance(self._fields, AutoInt | ARMNet) or self._history is not None

    @property
    def field_names(self) -> tuple[str, ...]:
        """The features that become vectors, in the order of an interaction's fields."""
        return tuple(name for name, _ in self.embeddings.layout(*get_args(Role)))

    @property
    def history_names(self) -> tuple[str, ...]:
        """The histories that the sequence layer reads, side by side."""
        return tuple(_repeats(self.embeddings.config, self.embeddings.features))

    def feature_weights(self) -> list[FeatureWeight]:
        """The cross network's, whose output is as wide as its input, an interaction's that go by field, and the first
        kernels of the dense layers: by the features, the history or the interaction's output that they read.
        """
        features = tuple(self.embeddings.layout(*get_args(Role)))
        crossed = features
        found = list[FeatureWeight]()
        if self._cross is not None:
            found += [reading(*pair, features) for pair in self._cross.input_weights()]
        if isinstance(self._fields, AutoInt):
            assert isinstance(self.config.interaction, AutoIntConfig)
            crossed = tuple((name, self.config.interaction.field_width) for name, _ in features)
        elif self._fields is not None:
            crossed = ()  # its output does not go by field
        if isinstance(self._fields, ARMNet):
            fields = tuple((name, 1) for name, _ in features)
            found += [FeatureWeight(weight, axes, fields) for weight, axes in self._fields.field_weights()]
        if self._linear is not None:
            found += [reading(kernel, (0,), crossed) for kernel in self._linear.trainable_weights]
        read = crossed if self._linear is None else features
        return found + [reading(*pair, read) for pair in self._mlp.input_weights()]

    def training_metrics(self) -> list[keras.metrics.Metric]:
        """Beside the loss, AUC and logloss of the probabilities."""
        return [*super().training_metrics(), self._streaming]

    @property
    def searches_shared_vectors(self) -> bool:
        """Whether target attention searches and represents the same vectors: TWIN."""
        return self._history is not None and self._history.searches_shared_vectors

    def example_losses(self, batch: Batch, training: bool, embedded: Embedded | None = None) -> tf.Tensor:
        """[b] the losses of each example's labels, by the heads' weights, and that of the auxiliary head.

        Args:
            batch: with labels.
            training: whether there is dropout.
            embedded: the batch's vectors, if they have been looked up.
        """
        if embedded is None:
            embedded = self.embeddings({**batch["query"], **batch["item"]})

        def logits_of_vectors() -> tuple[tf.Tensor, tf.Tensor | None]:
            return self._of_vectors(embedded, training)

        if training and self._xla:  # tables stay outside: XLA would make their gradients as large as they are
            logits_of_vectors = tf.function(logits_of_vectors, jit_compile=True)
        trained, auxiliary = logits_of_vectors()
        if training:
            self._streaming.update_state(batch["label"], self._log_odds(trained)[MAIN_LABEL], batch["weight"])
        losses = self._label_losses(batch, trained)
        if auxiliary is not None:
            of_history = pointwise_loss(self.config.loss_of(MAIN_LABEL), batch["label"], auxiliary)
            losses += self._auxiliary_weight * of_history
        return losses

    def _label_losses(self, batch: Batch, trained: tf.Tensor) -> tf.Tensor:
        """[b] the losses of each example's labels, by the heads' weights, from the logits that they train [b, H]."""
        logits = dict(zip(self.heads, tf.unstack(trained, len(self.heads), -1), strict=True))
        losses = pointwise_loss(self.config.loss_of(MAIN_LABEL), batch["label"], logits[MAIN_LABEL])
        if self.config.heads:
            losses *= self.config.heads[MAIN_LABEL].weight
        for name, head in self.config.further_heads.items():
            loss, share = self.config.loss_of(name), self._known.get(name, 1.0)
            losses += head.weight * known_losses(loss, batch["labels"][name], logits[name], share)
        return losses


def _repeats(embeddings: EmbeddingsConfig, features: Mapping[str, FeatureInfo]) -> dict[str, str]:
    """The histories that stay sequences, and the item features that they repeat."""
    return {
        name: info.of
        for name, info in features.items()
        if isinstance(info, SequenceInfo) and embeddings.features[name].pooling == "none"
    }
