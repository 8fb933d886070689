"""Warm start: a new model takes over what an earlier one knows.

Features, tables and dense weights are known by name, ids by their text. The rows of known ids are copied as they are
stored, bit for bit; new ids keep their initial rows. Of a dense weight that reads all features' vectors, the parts of
known features are copied. Everything else, the optimizers' state included, starts as it does without a warm start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, SequenceInfo, VectorInfo
from recsys.embeddings.addressing import Hashes, vocabulary_rows
from recsys.embeddings.mixed_dim import FrequencyBlocks
from recsys.embeddings.rows import GivenRows
from recsys.embeddings.tables import PLANNED, Table
from recsys.errors import ConfigError, Problem
from recsys.models.base import EmbeddingModel, FeatureWeight

CURE = "change it back, or train without training.warm_start"
FREE = {"optimizer", "served_precision", "initializer", "path", "train", "commitment"}
"""What may differ between the configs of a table: the rest says what its weights are."""
PROBES = 4_096
"""Fingerprints whose rows are compared, where there is no vocabulary to go through."""

Values = Callable[[str], NDArray[np.object_]]
"""From a feature with a vocabulary to the text of each id after the missing and OOV ids."""


@dataclass(frozen=True)
class Known:
    """A model, built, and the texts of its ids."""

    model: EmbeddingModel
    values: Values


@dataclass(frozen=True)
class WarmStart:
    """What a model took over."""

    rows: dict[str, int]
    """How many rows were copied, by table; tables that the earlier model lacks are not listed."""
    whole: tuple[str, ...]
    """Dense weights that were copied."""
    parts: tuple[str, ...]
    """Dense weights of which the parts of known features were copied."""
    fresh: tuple[str, ...]
    """Dense weights that the earlier model lacks, or has in another shape."""

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in self.rows.items()) or "no rows"
        return f"{rows}; {len(self.whole)} dense weights whole, {len(self.parts)} in part, {len(self.fresh)} not"


def warm_start(new: Known, earlier: Known) -> WarmStart:
    """Copies into a new model what an earlier one knows.

    Raises:
        ConfigError: the models are of different kinds, or share features or tables that do not fit each other: a
            problem for each. Nothing is copied then.
    """
    problems = list(_config_problems(new.model, earlier.model))
    if problems:
        raise ConfigError(problems)
    tables, earlier_tables = new.model.embeddings.tables, earlier.model.embeddings.tables
    pairs = {name: _row_pairs(name, new, earlier) for name in tables if name in earlier_tables}
    problems = [p for name in pairs for p in _row_problems(name, tables[name], earlier_tables[name], pairs[name])]
    if problems:
        raise ConfigError(problems)
    rows = {name: _copy_rows(tables[name], earlier_tables[name], pairs[name]) for name in pairs}
    return WarmStart(rows, *_copy_dense(new.model, earlier.model))


def _config_problems(model: EmbeddingModel, earlier: EmbeddingModel) -> Iterator[Problem]:
    """What the configs and the features tell, before any row is looked at."""
    if type(model) is not type(earlier):
        yield _problem("model.kind", type(model).__name__, type(earlier).__name__)
        return
    now, then = model.embeddings, earlier.embeddings
    shared = [name for name in now.features if name in then.features]
    if not shared:
        yield _problem("schema.features", ", ".join(now.features), f"some of {', '.join(then.features)}")
    for name in shared:
        found, expected = _nature(now.features[name]), _nature(then.features[name])
        if found != expected:
            yield _problem(f"schema.features.{name}", found, expected)
    for name in now.config.features.keys() & then.config.features.keys():
        table, earlier_table = now.config.features[name].table, then.config.features[name].table
        if table != earlier_table:
            yield _problem(f"embeddings.features.{name}.table", str(table), str(earlier_table))
    for name in now.tables.keys() & then.tables.keys():
        if PLANNED in (now.tables[name].method, then.tables[name].method):
            found, cure = f"table {name!r} is under a plan", "a plan's `weights` carry rows over; leave out warm_start"
            yield Problem("embeddings.plan", found, "full tables in both runs", cure)
        table_now, table_then = (side.config.tables[name].model_dump(exclude=FREE) for side in (now, then))
        same_method = table_now["method"] == table_then["method"]
        for key in table_now if same_method else ("method",):
            if table_now[key] != table_then[key]:
                yield _problem(f"embeddings.tables.{name}.{key}", str(table_now[key]), str(table_then[key]))


def _nature(info: FeatureInfo) -> str:
    match info:
        case CategoricalInfo():
            return "ids of a vocabulary"
        case FingerprintInfo():
            return "fingerprints (encoding: hash)"
        case SequenceInfo():
            return f"a sequence of {info.of!r}"
        case NumericInfo():
            return f"a number, {info.transform}"
        case VectorInfo():
            return f"a vector of {info.dim}"


def _problem(place: str, found: str, expected: str) -> Problem:
    return Problem(place, found, f"{expected}, as in the run of training.warm_start", CURE)


@dataclass(frozen=True)
class _RowPairs:
    """The rows of a table that the known ids of one vocabulary read."""

    owner: str
    rows: NDArray[np.int64]
    """[n]"""
    earlier: NDArray[np.int64]
    """[n] read by the same ids, in the same chunks, in the earlier model."""


def _row_pairs(table: str, new: Known, earlier: Known) -> list[_RowPairs]:
    """For each vocabulary that reads a table in both models."""
    readers, earlier_readers = (side.model.embeddings.owners(table) for side in (new, earlier))
    found = []
    for owner in sorted(readers.keys() & earlier_readers.keys()):
        ids, earlier_ids = _known_ids(owner, new, earlier)
        rows = new.model.embeddings.tables[table].rows_of(readers[owner], ids)
        earlier_rows = earlier.model.embeddings.tables[table].rows_of(earlier_readers[owner], earlier_ids)
        chunks = min(rows.shape[1], earlier_rows.shape[1])
        found.append(_RowPairs(owner, rows[:, :chunks].ravel(), earlier_rows[:, :chunks].ravel()))
    return found


def _known_ids(owner: str, new: Known, earlier: Known) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of what both models know, in each of them."""
    now, then = new.model.embeddings.features[owner], earlier.model.embeddings.features[owner]
    if isinstance(now, CategoricalInfo) and isinstance(then, CategoricalInfo):
        places = pd.Index(earlier.values(owner)).get_indexer(pd.Index(new.values(owner)))
        known = np.flatnonzero(places >= 0)
        # With another number of OOV rows each of them is read by other texts: they start afresh.
        special = np.arange(1 + now.oov_rows if now.oov_rows == then.oov_rows else 1)
        ids = np.concatenate([special, 1 + now.oov_rows + known])
        return ids, np.concatenate([special, 1 + then.oov_rows + places[known]])
    if isinstance(now, NumericInfo) and isinstance(then, NumericInfo):
        # Buckets are quantiles, and known by their number.
        ids = np.arange(vocabulary_rows(now) if len(now.boundaries) == len(then.boundaries) else 1)
        return ids, ids
    probes = np.random.default_rng(0).integers(0, 2**63 - 1, PROBES)
    return probes, probes


def _row_problems(name: str, table: Table, earlier: Table, pairs: Sequence[_RowPairs]) -> Iterator[Problem]:
    """Rows that can only be copied all together, and would then be those of other ids."""
    place, moved = f"embeddings.tables.{name}", [p.owner for p in pairs if not np.array_equal(p.rows, p.earlier)]
    if isinstance(table.addressing, Hashes) and moved:
        found = f"the ids of {', '.join(map(repr, moved))} read other rows than in the run of training.warm_start"
        cure = "`encoding: hash` in the schema makes rows independent of vocabularies; or train without warm_start"
        yield Problem(place, found, "the same vocabulary and readers", cure)
    if isinstance(table.store, FrequencyBlocks) and isinstance(earlier.store, FrequencyBlocks):
        whole = sum(len(pair.rows) for pair in pairs) == table.store.rows
        if moved or not whole or table.store.blocks != earlier.store.blocks:
            found = "widths go by frequency, and the vocabularies or counts are not those of training.warm_start"
            yield Problem(place, found, "the same training data", "use `method: full`, or train without warm_start")


def _copy_rows(table: Table, earlier: Table, pairs: Sequence[_RowPairs]) -> int:
    """How many rows were copied."""
    if not earlier.trained():
        return 0  # given vectors that were never trained come from their file
    if isinstance(table.addressing, Hashes) or isinstance(table.store, FrequencyBlocks):
        for own, other in zip(table.trained(), earlier.trained(), strict=True):
            own.variable.assign(_value(other.variable))
        return table.store.rows
    # Given vectors that are frozen now may have been trained before.
    given = [table.store.embeddings] if isinstance(table.store, GivenRows) else []
    (variable,) = given or [trained.variable for trained in table.trained()]
    (source,) = [trained.variable for trained in earlier.trained()]
    values, known = _value(variable), _value(source)
    for pair in pairs:
        values[pair.rows] = known[pair.earlier]
    variable.assign(values)
    return sum(len(pair.rows) for pair in pairs)


def _copy_dense(
    model: EmbeddingModel, earlier: EmbeddingModel
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The weights copied whole, in parts, and not at all."""
    whole, parts, fresh = list[str](), list[str](), list[str]()
    sources = _dense_weights(earlier)
    for path, own in _dense_weights(model).items():
        source = sources.get(path)
        places = None if source is None else _known_places(own, source)
        if source is None or places is None:
            fresh.append(path)
            continue
        values = _value(own.weight)
        values[np.ix_(*(here for here, _ in places))] = _value(source.weight)[np.ix_(*(there for _, there in places))]
        own.weight.assign(values)
        (whole if own.layout == source.layout else parts).append(path)
    return tuple(whole), tuple(parts), tuple(fresh)


def _dense_weights(model: EmbeddingModel) -> dict[str, FeatureWeight]:
    """The dense optimizer's weights, and the moments that layers keep of past batches, each by the way to it:
    attributes' names, and in lists of layers the layers' own.

    (Variables' names will not do: TensorFlow numbers layers without a name through, over all models of a process.)
    """
    numbers = [
        FeatureWeight(weight, (0,), tuple((name, 1) for name in names))
        for weight, names in model.embeddings.number_weights()
    ]
    along = {id(found.weight): found for found in [*model.feature_weights(), *numbers]}
    moments = [
        weight
        for layer in model.layers
        if layer is not model.embeddings
        for weight in layer.non_trainable_variables
        if weight is not model.global_step  # which dropout holds
    ]
    weights = [*model.dense_variables(), *moments]
    wanted = {id(weight): along.get(id(weight), FeatureWeight(weight, (), ())) for weight in weights}
    found: dict[str, FeatureWeight] = {}
    queue, seen = deque((layer.name, layer) for layer in model.layers), set[int]()
    while queue:
        path, node = queue.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in wanted:
            found[path] = wanted[id(node)]
        for edge, child in tf.train.TrackableView.children(node).items():
            listed = edge.isdigit() and isinstance(child, keras.layers.Layer)
            queue.append((f"{path}/{child.name if listed else edge}", child))
    return found


def _known_places(
    own: FeatureWeight, source: FeatureWeight
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]] | None:
    """For each axis, the places of what both weights know, in each; None for weights of other shapes."""
    if own.axes != source.axes or own.weight.shape.rank != source.weight.shape.rank:
        return None
    shared = set(own.layout) & set(source.layout)
    along_features = _places(own.layout, shared), _places(source.layout, shared)
    places = []
    for axis, (size, source_size) in enumerate(zip(own.weight.shape, source.weight.shape, strict=True)):
        if axis not in own.axes and size != source_size:
            return None
        places.append(along_features if axis in own.axes else (np.arange(size), np.arange(size)))
    return places


def _places(layout: Sequence[tuple[str, int]], shared: Collection[tuple[str, int]]) -> NDArray[np.int64]:
    """Where the vectors of shared features stand among all, feature by feature in the order of their names."""
    starts = np.cumsum([0, *(width for _, width in layout)])
    where = {feature: start + np.arange(feature[1]) for feature, start in zip(layout, starts, strict=False)}
    return np.concatenate([np.empty(0, np.int64), *(where[feature] for feature in sorted(shared))])


def _value(variable: tf.Variable) -> NDArray:
    """A copy."""
    return np.array(tf.convert_to_tensor(variable).numpy())
