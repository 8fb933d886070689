"""From a batch's features to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recsys._compat import keras, tf
from recsys.data.dataset import MISSING, CategoricalInfo, FeatureInfo, NumericInfo, SequenceInfo, VectorInfo
from recsys.embeddings.addressing import vocabulary_of
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.embedded import Embedded, Group, Padded
from recsys.embeddings.id_dropout import IdDropout
from recsys.embeddings.numeric import NumberVectors, bucketize, standardize
from recsys.embeddings.optembed import Supernet
from recsys.embeddings.planned import plans_of
from recsys.embeddings.pooling import AgeDecay, newest, pool
from recsys.embeddings.rows import Trained
from recsys.embeddings.seeds import seed_for
from recsys.embeddings.served import ServedRows
from recsys.embeddings.tables import Table, Vocabularies
from recsys.errors import ExportError
from recsys.schema.config import Role

Batch = Mapping[str, tf.Tensor]


class EmbeddingCollection(keras.layers.Layer):
    """All tables of a model, and the way from any subset of a batch's features to vectors: one lookup per table.

    Under a mixed-precision policy tables stay float32, and vectors come in the policy's compute type.

    Args:
        config: tables and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: the experiment's seed.
        vocabularies: of the training data, for methods that go by frequency or start from given vectors.
        step: of the training, for methods that draw at random in each.
    """

    def __init__(
        self,
        config: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        seed: int = 0,
        vocabularies: Vocabularies | None = None,
        step: tf.Variable | None = None,
    ) -> None:
        super().__init__(name="embeddings", autocast=False)
        self.config = config
        self.features = dict(features)
        self._entries = config.features
        plans = plans_of(config, features, vocabularies.values if vocabularies else None)
        self.tables = {
            name: Table(name, config, features, vocabularies, seed, plans.get(name), step) for name in config.tables
        }
        self._dropouts = {
            name: IdDropout(name, entry.dropout, _vocabulary(name, features), seed, step)
            for name, entry in config.features.items()
            if entry.dropout and step is not None
        }
        self._decays = {
            name: AgeDecay(name=f"age_decay_{name}", dtype="float32")  # a day has more seconds than float16
            for name, info in features.items()
            if isinstance(info, SequenceInfo) and info.age and self._entries[name].pooling != "none"
        }
        widths = {name: entry.projection for name, entry in config.features.items() if entry.projection is not None}
        self._projections = {
            name: keras.layers.Dense(
                width,
                use_bias=False,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed_for(seed, "projection", name)),
                name=f"projection_{name}",
            )
            for name, width in widths.items()
            if isinstance(features[name], VectorInfo)
        }
        numbers = [name for name, info in features.items() if name in widths and isinstance(info, NumericInfo)]
        self._numbers = [
            NumberVectors([name for name in numbers if widths[name] == width], width, seed)
            for width in dict.fromkeys(widths[name] for name in numbers)
        ]

    def trained(self) -> list[Trained]:
        """What the sparse optimizers train, table by table."""
        return [trained for table in self.tables.values() for trained in table.trained()]

    def call(self, batch: Batch, served: Mapping[str, ServedRows] | None = None, training: bool = False) -> Embedded:
        """Vectors and sequences of all features in the batch, whatever their order there.

        Args:
            batch: encoded features as `docs/architecture.md` lists them; `NAME.age` goes with the sequence NAME.
            served: by table, rows to read in place of the trained ones.
            training: supernets draw widths, and ids are dropped.
        """
        names = [name for name in self.features if name in batch]
        ids, ages = self.ids_and_ages(names, batch)
        if training:
            ids = {name: self._dropouts[name](each) if name in self._dropouts else each for name, each in ids.items()}
        groups, sequences = self._given(names, ids, batch), dict[str, Padded]()
        searched, search = list[Group](), dict[str, Padded]()
        for name, table in self.tables.items():
            read = {reader: ids[reader] for reader in ids if self._entries[reader].reads(name)}
            if not read:
                continue
            side_by_side, many = table(read, served[name] if served is not None else None, training)
            own = {reader for reader in read if self._entries[reader].table == name}
            for group in side_by_side:
                cast = Group(group.names, tf.cast(group.values, self.compute_dtype))
                groups += cast.only(own)
                searched += cast.only(read.keys() - own)
            for reader, values in many.items():
                mask = tf.not_equal(ids[reader], MISSING)
                if self._entries[reader].pooling == "none":
                    kept = sequences if reader in own else search
                    kept[reader] = Padded(tf.cast(values, self.compute_dtype), mask)
                else:
                    pooled = self._pooled(reader, values, mask, ages)
                    groups.append(Group((reader,), tf.cast(pooled, self.compute_dtype)[:, tf.newaxis]))
        targets = {name for group in searched for name in group.names}
        attention = Embedded([name for name in names if name in targets], searched, search)
        single = [name for name in names if name not in sequences]
        return Embedded(single, groups, sequences, attention if targets or search else None)

    def thresholds(self) -> list[Trained]:
        """What supernets descend by plain SGD."""
        return [table.store.descending() for table in self.tables.values() if isinstance(table.store, Supernet)]

    def penalty(self) -> tf.Tensor | None:
        """What the supernets add to the loss of a batch; None where there is none."""
        penalties = [t.store.penalty() for t in self.tables.values() if isinstance(t.store, Supernet)]
        return tf.add_n(penalties) if penalties else None

    def candidates(self, query: Batch, item: Batch, served: Mapping[str, ServedRows] | None = None) -> Embedded:
        """K items for one user: as `call` has them for pairs, but the user's features are looked up once. The vectors
        [1, D] that they become are repeated; sequences stay [1, T, D].

        Args:
            query: user and context features of one user.
            item: those of K items.
            served: as for `call`.
        """
        items = self(item, served=served)
        count = tf.shape(items.groups[0].values)[0] if items.groups else 0
        return _joined(list(self.features), self(query, served=served), items, lambda v: tf.repeat(v, count, 0))

    def pairs(
        self, query: Batch, item: Batch, query_of: tf.Tensor, served: Mapping[str, ServedRows] | None = None
    ) -> Embedded:
        """K pairs of an item and one of U users: as `call` has them, but each user's features are looked up once.

        Args:
            query: user and context features of U users.
            item: those of K items.
            query_of: [K] whose candidate each item is.
            served: as for `call`.
        """
        users = self(query, served=served).gathered(query_of)
        return _joined(list(self.features), users, self(item, served=served), lambda v: v)

    def at_moments(self, query: Batch, row: tf.Tensor, training: bool = False) -> Embedded:
        """n moments of B users: the context's vectors [n, D], and the users', looked up once and gathered. Sequences
        stay [B, T, D].

        Args:
            query: user features of B users, and context features of n moments.
            row: [n] whose each moment is.
            training: as for `call`.
        """
        context = [name for name, info in self.features.items() if info.role == "context" and name in query]
        users = self({name: values for name, values in query.items() if name not in context}, training=training)
        moments = self({name: query[name] for name in context}, training=training)
        return _joined(list(self.features), users, moments, lambda v: tf.gather(v, row))

    def owners(self, table: str) -> dict[str, str]:
        """Of each vocabulary that a table holds, a feature that reads it: the one with the most chunks."""
        readers = sorted(self.config.readers(table), key=lambda reader: self._entries[reader].chunks)
        return {vocabulary_of(reader, self.features): reader for reader in readers}

    def number_weights(self) -> list[tuple[tf.Variable, tuple[str, ...]]]:
        """The weights that turn numbers into vectors, and the features that their rows belong to."""
        return [(layer.vectors, layer.names) for layer in self._numbers]

    def kept_sequences(self) -> dict[str, int]:
        """The histories with `pooling: none`, in the schema's order, and how many events of each are read at most."""
        entries = self._entries
        return {
            name: min(info.max_length, entries[name].max_length or info.max_length)
            for name, info in self.features.items()
            if isinstance(info, SequenceInfo) and entries[name].pooling == "none"
        }

    def layout(self, *roles: Role) -> list[tuple[str, int]]:
        """(name, width) of each vector that the features of these roles become, as `Embedded.layout` has it."""
        widths = {name: self._width(name, info) for name, info in self.features.items() if info.role in roles}
        return [(name, width) for name, width in widths.items() if width]

    def _width(self, name: str, info: FeatureInfo) -> int:
        """0 for what stays a sequence."""
        entry = self._entries.get(name)
        if entry is None or entry.table is None:
            return (entry.projection if entry else None) or (info.dim if isinstance(info, VectorInfo) else 1)
        table = self.tables[entry.table]
        return 0 if entry.pooling == "none" else table.addressing.chunks(name) * table.store.dim

    def serve(self) -> dict[str, ServedRows]:
        """Each table's rows as a bundle holds them, made from the present weights.

        Raises:
            ExportError: a table holds a number that its served precision cannot.
        """
        served = {}
        for name, table in self.tables.items():
            try:
                served[name] = table.store.serve()
            except ValueError as error:
                place, cure = f"embeddings.tables.{name}", "set served_precision to float32"
                raise ExportError(place, str(error), cure=cure) from error
        return served

    def ids_and_ages(self, names: list[str], batch: Batch) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Ids of the features that read tables, in the schema's order, cut to their greatest lengths; and ages."""
        ids, ages = {}, {}
        read = [name for name in names if name in self._entries and self._entries[name].table is not None]
        buckets = [name for name in read if isinstance(self.features[name], NumericInfo)]
        if buckets:
            infos = [info for info in map(self.features.get, buckets) if isinstance(info, NumericInfo)]
            found = tf.unstack(bucketize(tf.stack([batch[name] for name in buckets], 1), infos), axis=1)
            bucketized = dict(zip(buckets, found, strict=True))
        for name in read:
            ids[name] = bucketized[name] if name in buckets else batch[name]
            if name in self._decays:
                ages[name] = batch[f"{name}.age"]
            length = self._entries[name].max_length
            if length is None:
                continue
            if isinstance(self.features[name], SequenceInfo):
                columns = newest(ids[name], length)
                ids[name] = tf.gather(ids[name], columns, batch_dims=1)
                if name in ages:
                    ages[name] = tf.gather(ages[name], columns, batch_dims=1)
            else:
                ids[name] = ids[name][..., :length]
        return ids, ages

    def _given(self, names: list[str], ids: Mapping[str, tf.Tensor], batch: Batch) -> list[Group]:
        """Numbers and given vectors: the features that read no table."""
        numbers = [name for name in names if name not in ids and isinstance(self.features[name], NumericInfo)]
        groups = self._number_groups(numbers, batch) if numbers else []
        for name in names:
            if name not in ids and name not in numbers:
                vector = tf.cast(batch[name], self.compute_dtype)
                if name in self._projections:
                    vector = self._projections[name](vector)
                groups.append(Group((name,), vector[:, tf.newaxis]))
        return groups

    def _number_groups(self, numbers: list[str], batch: Batch) -> list[Group]:
        """Numbers as they are in a group of width 1; those that are projected in one for each other width."""
        infos = [info for info in map(self.features.get, numbers) if isinstance(info, NumericInfo)]
        scaled = tf.cast(standardize(tf.stack([batch[name] for name in numbers], 1), infos), self.compute_dtype)
        plain = Group(tuple(numbers), scaled[..., tf.newaxis])
        groups = plain.only(set(numbers).difference(*(layer.names for layer in self._numbers)))
        for layer in self._numbers:
            for group in plain.only(layer.names):
                groups.append(Group(group.names, layer(group.values[..., 0], group.names)))
        return groups

    def _pooled(self, name: str, values: tf.Tensor, mask: tf.Tensor, ages: Mapping[str, tf.Tensor]) -> tf.Tensor:
        weights = tf.cast(mask, tf.float32)
        if name in self._decays:
            weights *= self._decays[name](ages[name])
        how = self._entries[name].pooling
        assert how != "none"
        return pool(values, weights, how)


def _vocabulary(name: str, features: Mapping[str, FeatureInfo]) -> CategoricalInfo:
    """That of the ids of a feature that has one."""
    info = features[vocabulary_of(name, features)]
    assert isinstance(info, CategoricalInfo)
    return info


def _joined(order: list[str], user: Embedded, other: Embedded, spread: Callable[[tf.Tensor], tf.Tensor]) -> Embedded:
    """Users' vectors, spread to as many rows as there are others, beside the others'."""
    gathered = [Group(group.names, spread(group.values)) for group in user.groups]
    attention = None
    if user.attention is not None or other.attention is not None:
        empty = Embedded([], [])
        attention = _joined(order, user.attention or empty, other.attention or empty, spread)
    names = {*user.order, *other.order}
    single = [name for name in order if name in names]
    return Embedded(single, [*gathered, *other.groups], {**user.sequences, **other.sequences}, attention)
