"""Measures of tables, against numbers by hand and by brute force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, SequenceInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.health import BLOCK, Ids, blocks, norms, table_health
from recsys.embeddings.health_record import TableHealth
from recsys.embeddings.tables import Vocabularies
from recsys.metrics.rank import EPSILON, effective_rank

FEATURES: dict[str, FeatureInfo] = {
    "film": CategoricalInfo(role="item", rows=14, oov_rows=1),
    "user": CategoricalInfo(role="user", rows=8, oov_rows=3),
    "seen": SequenceInfo(of="film", max_length=3, age=False),
    "tag": FingerprintInfo(role="item"),
}
IDS = {
    "film": Ids(np.arange(2, 14), np.arange(12, 0, -1)),
    "user": Ids(np.arange(4, 8), np.array([9, 9, 9, 1])),
    "tag": Ids(np.arange(1, 2**62, 2**57)),
}


def collection(table: Mapping[str, Any], seed: int = 0, **readers: Mapping[str, Any]) -> EmbeddingCollection:
    """One table `t`, read by film, seen and user, or by the readers given."""
    chosen = readers or {"film": {}, "seen": {}, "user": {}}
    config = EmbeddingsConfig.model_validate(
        {"tables": {"t": dict(table)}, "features": {name: {"table": "t", **entry} for name, entry in chosen.items()}}
    )
    features = {name: info for name, info in FEATURES.items() if name in chosen}

    def frequencies(name: str) -> np.ndarray:
        counts = IDS[name].counts
        assert counts is not None
        return np.concatenate([np.zeros(FEATURES[name].rows - len(counts), np.int64), counts])  # type: ignore[union-attr]

    found = EmbeddingCollection(config, features, seed, Vocabularies(frequencies, lambda name: np.array([])))
    found.tables["t"].build(None)
    return found


def measured(
    embeddings: EmbeddingCollection, initial: EmbeddingCollection | None = None, ids: Mapping[str, Ids] = IDS
) -> TableHealth:
    slots = [tf.Variable(tf.zeros([3, 4])), tf.Variable(tf.zeros([3, 1], tf.int32))]
    return table_health("t", embeddings, ids, disk_bytes=77, slots=slots, initial=initial)


# Effective rank.


def rank_of(matrix: np.ndarray) -> float:
    return effective_rank(blocks(lambda rows: matrix[rows].astype(np.float32), len(matrix)))


def test_effective_rank_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3 * BLOCK + 17, 6)).astype(np.float32) * np.array([5, 1, 1, 0.3, 0.1, 1e-3], np.float32)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    share = singular / singular.sum() + EPSILON
    np.testing.assert_allclose(rank_of(matrix), np.exp(-(share * np.log(share)).sum()), rtol=1e-6)


def test_effective_rank_counts_directions() -> None:
    np.testing.assert_allclose(rank_of(np.eye(5)), 5.0, rtol=1e-4)
    np.testing.assert_allclose(rank_of(np.outer(np.arange(1, 9), [1.0, 2.0, 3.0])), 1.0, rtol=1e-4)
    # Singular values 3 and 1: shares of 3/4 and 1/4, entropy 0.562.
    np.testing.assert_allclose(rank_of(np.diag([3.0, 1.0])), np.exp(0.5623351), rtol=1e-4)
    assert rank_of(np.zeros((4, 3))) == 0.0


def test_effective_rank_is_not_centred() -> None:
    """A common vector is a direction, too."""
    assert rank_of(np.ones((100, 4)) * 7) < 1.01


# Sizes.


@pytest.mark.parametrize(
    ("table", "rows", "parameters", "precision"),
    [
        ({"dim": 4}, 22, 22 * 4, "float32"),
        ({"dim": 4, "precision": "bfloat16"}, 22, 22 * 4, "bfloat16"),
        ({"dim": 4, "precision": "int8"}, 22, 22 * 5, "int8"),
        ({"method": "multiplexed", "rows": 10, "tables": 3, "dim": 4}, 30, 30 * 4, "float32"),
        ({"method": "mgqe", "dim": 4, "parts": 2, "codes": 8, "tail_codes": 2}, 22, 22 * 4 + 2 * 8 * 2, "float32"),
    ],
)  # fmt: skip
def test_sizes(table: Mapping[str, Any], rows: int, parameters: int, precision: str) -> None:
    found = measured(collection(table))
    assert (found.rows, found.dim, found.parameters, found.precision) == (rows, 4, parameters, precision)
    assert (found.bytes, found.optimizer_bytes) == (77, 3 * 4 * 4 + 3 * 4)
    assert (found.name, found.method) == ("t", table.get("method", "full"))
    assert found.features == ("film", "seen", "user")
    assert 0.9 < found.effective_rank <= 4.001  # type: ignore[operator]


# What training never reached.


def moved(embeddings: EmbeddingCollection, table: Mapping[str, Any], *rows: int) -> EmbeddingCollection:
    """The same with other numbers in some stored rows."""
    other = collection(table, seed=0)
    start = 0
    for trained in other.tables["t"].trained():
        variable = trained.variable
        inside = [row - start for row in rows if start <= row < start + variable.shape[0]]
        values = variable.numpy()
        values[inside, -1] += 1
        variable.assign(values)
        start += variable.shape[0]
    return other


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_ids_whose_rows_are_as_they_were(precision: str) -> None:
    """Rows 0, 1, 14 to 17 are those of missing and OOV; films follow at 2, users at 18."""
    table = {"dim": 4, "precision": precision}
    initial = collection(table)
    assert measured(initial, collection(table)).untrained == 1.0
    assert measured(moved(initial, table, 0, 1, 15), initial).untrained == 1.0
    assert measured(moved(initial, table, 0, 2, 13, 18, 21), initial).untrained == 12 / 16
    assert measured(moved(initial, table, *range(22)), initial).untrained == 0.0
    assert measured(initial, None).untrained is None


def test_of_hashed_tables_rows_are_counted() -> None:
    table = {"method": "hashed", "rows": 20, "dim": 2}
    initial = collection(table)
    assert measured(moved(initial, table, 3, 4, 19), initial).untrained == 17 / 20


def test_rows_of_mixed_widths_are_found_in_their_variables() -> None:
    table = {"method": "mixed_dim", "dim": 8, "alpha": 1.0}
    initial = collection(table)
    store = initial.tables["t"].store
    widths = {trained.variable.shape[1] for trained in store.trained()}
    assert len(widths) > 2
    for block in store.blocks:  # type: ignore[attr-defined]
        for row in (block.first, block.first + block.rows - 1):
            other = collection(table)
            before = other.tables["t"].store.lookup(tf.range(22)).numpy()
            (variable,) = [t.variable for t in other.tables["t"].trained() if t.variable.shape[1] == block.width]
            filled = sum(b.rows for b in store.blocks if b.width == block.width and b.first < block.first)  # type: ignore[attr-defined]
            variable.scatter_nd_add([[filled + row - block.first]], tf.ones([1, block.width]))
            after = other.tables["t"].store.lookup(tf.range(22)).numpy()
            assert np.flatnonzero((before != after).any(1)).tolist() == [row]
            is_value = 2 <= row < 14 or row >= 18
            assert measured(other, initial).untrained == (15 / 16 if is_value else 1.0)


# Collisions.


def rows_of(embeddings: EmbeddingCollection, feature: str) -> list[tuple[int, ...]]:
    found = embeddings.tables["t"].addressing(tf.constant(IDS[feature].values)[:, tf.newaxis], [feature])
    return [tuple(row) for row in found.numpy().tolist()]


@pytest.mark.parametrize(
    ("table", "chunks"),
    [
        ({"method": "multiplexed", "rows": 7, "dim": 2}, 1),
        ({"method": "multiplexed", "rows": 3, "dim": 2, "tables": 2}, 2),
        ({"method": "multiplexed", "rows": 4, "dim": 2}, 2),
        ({"method": "hashed", "rows": 11, "dim": 2}, 1),
    ],
)
def test_collisions_are_those_of_the_ids(table: Mapping[str, Any], chunks: int) -> None:
    embeddings = collection(table, film={"chunks": chunks}, seen={}, user={})
    found = measured(embeddings)
    assert [(v.feature, v.ids) for v in found.vocabularies] == [("film", 12), ("user", 4)]
    readers: Counter[int] = Counter()
    for vocabulary in found.vocabularies:
        rows = rows_of(embeddings, vocabulary.feature)
        times = Counter(rows)
        assert vocabulary.colliding == np.mean([times[row] > 1 for row in rows])
        readers.update(row for rows_of_id in rows for row in set(rows_of_id))
    assert found.vocabularies[0].colliding > 0
    np.testing.assert_allclose(found.ids_per_row, np.mean(list(readers.values())))


def test_a_full_table_has_none() -> None:
    found = measured(collection({"dim": 2}))
    assert [v.colliding for v in found.vocabularies] == [0.0, 0.0]
    assert found.ids_per_row == 1.0


def test_one_shared_chunk_is_no_collision() -> None:
    """With two chunks an id is told apart by either: in 40 rows, 12 ids share single rows and no pair of rows."""
    embeddings = collection({"method": "multiplexed", "rows": 40, "dim": 2}, film={"chunks": 2})
    rows = rows_of(embeddings, "film")
    assert len({row for pair in rows for row in pair}) < 24
    assert measured(embeddings).vocabularies[0].colliding == 0.0


def test_ids_without_a_vocabulary() -> None:
    embeddings = collection({"method": "multiplexed", "rows": 8, "dim": 2}, film={}, tag={})
    found = measured(embeddings)
    assert [(v.feature, v.ids) for v in found.vocabularies] == [("film", 12), ("tag", 32)]
    unknown = measured(embeddings, ids={"film": IDS["film"]})
    assert [v.feature for v in unknown.vocabularies] == ["film"]
    assert unknown.ids_per_row is None


# Norms.


def test_norms_are_those_of_the_vectors_that_a_model_sees() -> None:
    embeddings = collection(
        {"method": "multiplexed", "rows": 9, "dim": 2, "precision": "int8"}, film={"chunks": 3}, user={}
    )
    ids = IDS["film"].values
    found = norms(embeddings, "film", ids)
    vectors = embeddings({"film": tf.constant(ids, tf.int32)}).concat().numpy()
    assert vectors.shape == (12, 6)
    np.testing.assert_allclose(found, np.sqrt((vectors**2).sum(1)), rtol=1e-6)
    assert norms(embeddings, "film", ids[:0]).shape == (0,)
