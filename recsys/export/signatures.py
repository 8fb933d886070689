"""The serving side of "one encoding": raw values to ids inside the graph, by the vocabularies that `prepare` wrote, and
the models that go on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.bundle.manifest import EXPLAIN, QUERY_OF, RANK, RANK_MANY, further_score
from recsys.data.config import MAIN_LABEL
from recsys.data.dataset import MISSING, CategoricalInfo, FeatureInfo, FingerprintInfo, SequenceInfo, VectorInfo
from recsys.data.encoding import FINGERPRINTS
from recsys.embeddings.addressing import vocabulary_of
from recsys.embeddings.served import ServedRows
from recsys.models.ranker import Ranker
from recsys.models.two_tower import Tower
from recsys.schema.config import Role

Batch = dict[str, tf.Tensor]


class Encoder(tf.Module):
    """Raw features, as `docs/architecture.md` lists them, to the batch that a model reads.

    Args:
        folder: the prepared data set; its vocabularies become hash tables of the graph.
        features: what `prepare` knows of every feature.
        names: the features to encode.
    """

    def __init__(self, folder: Path, features: Mapping[str, FeatureInfo], names: list[str]) -> None:
        super().__init__()
        self._features = {name: features[name] for name in names}
        self._vocabulary_of = {name: vocabulary_of(name, features) for name in names}
        self._sources = {source: features[source] for source in self._vocabulary_of.values()}
        self._tables = {
            source: _vocabulary(folder / "vocab" / f"{source}.parquet", info.oov_rows)
            for source, info in self._sources.items()
            if isinstance(info, CategoricalInfo)
        }

    def specs(self) -> dict[str, tf.TensorSpec]:
        """The signature's inputs by name."""
        specs = {}
        for name, info in self._features.items():
            many = isinstance(info, SequenceInfo) or getattr(info, "max_length", None) is not None
            if isinstance(info, (CategoricalInfo, FingerprintInfo, SequenceInfo)):
                specs[name] = tf.TensorSpec([None, None] if many else [None], tf.string, name)
            elif isinstance(info, VectorInfo):
                specs[name] = tf.TensorSpec([None, info.dim], tf.float32, name)
            else:
                specs[name] = tf.TensorSpec([None], tf.float32, name)
            if isinstance(info, SequenceInfo) and info.age:
                specs[f"{name}.age"] = tf.TensorSpec([None, None], tf.float32, f"{name}_age")
        return specs

    def role_of(self, name: str) -> Role:
        """Whom an input describes."""
        return self._features[name.removesuffix(".age")].role

    def encode(self, raw: Batch) -> Batch:
        """The encoded batch; sequences keep their newest `max_length` values, multi-valued features their first.

        raw: the inputs of all features, or of some.
        """
        batch = {}
        for name, info in self._features.items():
            if name not in raw:
                continue
            value = raw[name]
            if isinstance(info, SequenceInfo):
                newest = _newest(value, info.max_length)
                batch[name] = self._ids(name, _take(value, newest, ""))
                if info.age:
                    batch[f"{name}.age"] = _take(raw[f"{name}.age"], newest, 0.0)
            elif isinstance(info, (CategoricalInfo, FingerprintInfo)):
                batch[name] = self._ids(name, value if info.max_length is None else _first(value, info.max_length))
            else:
                batch[name] = value
        return batch

    def _ids(self, name: str, text: tf.Tensor) -> tf.Tensor:
        source = self._vocabulary_of[name]
        info = self._sources[source]
        if isinstance(info, CategoricalInfo):
            known = self._tables[source].lookup(text)
            oov = 1 + tf.cast(tf.strings.to_hash_bucket_fast(text, info.oov_rows), tf.int32)
            ids = tf.where(known < 0, oov, known)
        else:
            ids = 1 + tf.strings.to_hash_bucket_fast(text, FINGERPRINTS)
        return tf.where(tf.equal(text, ""), tf.constant(MISSING, ids.dtype), ids)


class TowerModule(tf.Module):
    """A tower that takes raw features: what `query_tower/` and `item_tower/` hold.

    Args:
        tower: the trained tower.
        encoder: of the tower's features.
        served: by table, the rows as the bundle stores them.
        rotation: [d, d] that the vectors are multiplied by, if they are aligned to others.
    """

    def __init__(
        self,
        tower: Tower,
        encoder: Encoder,
        served: Mapping[str, ServedRows],
        rotation: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tower = tower
        self._rotation = None if rotation is None else tf.constant(rotation)
        self.served = dict(served)
        self.serve = tf.function(self._serve, autograph=False).get_concrete_function(encoder.specs())

    def _serve(self, raw: Batch) -> Batch:
        return {"embedding": self.embed(raw)}

    def embed(self, raw: Batch) -> tf.Tensor:
        """[B, d] vectors of raw features."""
        vectors = self.tower(self.encoder.encode(raw), training=False, served=self.served)
        return vectors if self._rotation is None else tf.matmul(vectors, self._rotation)

    def save(self, path: Path) -> None:
        """Writes the SavedModel."""
        save_served(self.serve, self.encoder, self.served, path)


class RankerModule(tf.Module):
    """A ranker that takes raw features: what `ranker/` holds. Its signature `serving_default` scores pairs, B users and
    B items; `rank` scores K items for one user, whose features and history come once, and are worked on once;
    `rank_many` scores K items for U users, and takes `query_of` [K] beside them.

    Args:
        ranker: the trained model.
        encoder: of all features.
        served: by table, the rows as the bundle stores them.
    """

    def __init__(self, ranker: Ranker, encoder: Encoder, served: Mapping[str, ServedRows]) -> None:
        super().__init__()
        self.encoder = encoder
        self.ranker = ranker
        self.served = dict(served)
        self.serve = tf.function(self.scores, autograph=False).get_concrete_function(encoder.specs())
        explain = tf.function(self._explain, autograph=False)
        self.explain = explain.get_concrete_function(encoder.specs()) if ranker.weighs else None
        specs = encoder.specs()
        items = {name for name in specs if encoder.role_of(name) == "item"}
        one_user = {
            name: spec if name in items else tf.TensorSpec([1, *spec.shape[1:]], spec.dtype, spec.name)
            for name, spec in specs.items()
        }
        self.rank, self.rank_many = None, None
        if 0 < len(items) < len(specs):  # nothing is to be gained where there are features of users or items alone
            query_of = tf.TensorSpec([None], tf.int32, QUERY_OF)
            self.rank = tf.function(self._rank, autograph=False).get_concrete_function(one_user)
            self.rank_many = tf.function(self._rank_many, autograph=False).get_concrete_function(specs, query_of)

    def _rank(self, raw: Batch) -> Batch:
        return self._scores(self.ranker.candidate_logits(self._encoded(raw), served=self.served))

    def _rank_many(self, raw: Batch, query_of: tf.Tensor) -> Batch:
        return self._scores(self.ranker.pair_logits(self._encoded(raw), query_of, served=self.served))

    def _encoded(self, raw: Batch) -> dict[str, Batch]:
        encoded = self.encoder.encode(raw)
        item = {name: values for name, values in encoded.items() if self.encoder.role_of(name) == "item"}
        return {"query": {name: values for name, values in encoded.items() if name not in item}, "item": item}

    def _explain(self, raw: Batch) -> Batch:
        looks = self.ranker.looks({"query": self.encoder.encode(raw), "item": {}}, self.served)
        return looks | {"fields": tf.constant(self.ranker.field_names)}

    def scores(self, raw: Batch) -> Batch:
        """[B] `logit`, `score` and `score_NAME` of raw features."""
        return self._scores(
            self.ranker.head_logits({"query": self.encoder.encode(raw), "item": {}}, served=self.served)
        )

    def _scores(self, found: Batch) -> Batch:
        logits = found.pop(MAIN_LABEL)
        further = {further_score(name): tf.sigmoid(each) for name, each in found.items()}
        return {"logit": logits, "score": tf.sigmoid(logits)} | further

    def save(self, path: Path) -> None:
        """Writes the SavedModel."""
        further = {EXPLAIN: self.explain, RANK: self.rank, RANK_MANY: self.rank_many}
        made = {name: function for name, function in further.items() if function is not None}
        save_served(self.serve, self.encoder, self.served, path, made)


def save_served(
    serve: Any, encoder: Encoder, served: Mapping[str, ServedRows], path: Path, further: Mapping[str, Any] | None = None
) -> None:
    """Writes a SavedModel with the concrete function `serve` as its signature, the vocabularies and the variables it
    reads: those of tables by name in `tables`. For whoever inspects it, `lookups` makes vectors of a table's rows.
    `further` signatures may read what `serve` reads.

    Nothing else: a model's layers hold all trained tables, those that only the other tower reads included.
    """
    read = {variable.ref() for variable in serve.variables}
    tables = {name: rows for name, rows in served.items() if any(v.ref() in read for v in rows.variables)}
    module = tf.Module()
    module.serve, module.encoder = serve, encoder
    module.tables = {name: list(rows.variables) for name, rows in tables.items()}
    named = {variable.ref() for rows in tables.values() for variable in rows.variables}
    module.read = [variable for variable in serve.variables if variable.ref() not in named]
    module.lookups = {name: _lookup(rows) for name, rows in tables.items()}
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve, **(further or {})})


def _lookup(rows: ServedRows) -> Any:
    """From rows int64 [n] to vectors [n, D]."""
    return tf.function(rows.lookup, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.int64))


def _vocabulary(path: Path, oov_rows: int) -> tf.lookup.StaticHashTable:
    values = pq.read_table(path, columns=["value"])["value"].to_numpy()
    ids = tf.range(len(values), dtype=tf.int32) + 1 + oov_rows
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(values, tf.string), ids)
    return tf.lookup.StaticHashTable(initializer, default_value=-1)


def _first(text: tf.Tensor, length: int) -> tf.Tensor:
    """[B, length] each row's first values, padded: as wide as in training, so that sums come out the same."""
    text = text[:, :length]
    padded = tf.pad(text, [[0, 0], [0, length - tf.shape(text)[1]]], constant_values="")
    return tf.ensure_shape(padded, [None, length])


def _newest(text: tf.Tensor, length: int) -> tf.Tensor:
    """[B, length] positions in [B, L] of each row's newest values, oldest first; -1 where there are fewer."""
    positions = tf.where(tf.equal(text, ""), 0, 1 + tf.range(tf.shape(text)[1]))
    count = tf.reduce_max(tf.pad(positions, [[0, 0], [0, 1]]), 1)
    window = tf.maximum(count - length, 0)[:, tf.newaxis] + tf.range(length)
    return tf.where(window < count[:, tf.newaxis], window, -1)


def _take(values: tf.Tensor, positions: tf.Tensor, padding: str | float) -> tf.Tensor:
    padded = tf.pad(values, [[0, 0], [0, 1]], constant_values=padding)
    end = tf.shape(values)[1]
    return tf.gather(padded, tf.where(positions < 0, end, positions), batch_dims=1)
