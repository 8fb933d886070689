"""Which rows an id reads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, SequenceInfo
from recsys.embeddings.addressing import Hashes, Offsets, id_limit, vocabulary_of, vocabulary_rows
from recsys.embeddings.config import HashedTable, MultiplexedTable
from recsys.embeddings.hashing import hash_rows, salt

FEATURES: dict[str, FeatureInfo] = {
    "history": SequenceInfo(of="movie", max_length=3, age=False),
    "movie": CategoricalInfo(role="item", rows=50, oov_rows=1),
    "genres": CategoricalInfo(role="item", rows=8, oov_rows=1, max_length=2),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0)),
    "tag": FingerprintInfo(role="item"),
}


def rows(addressing: Offsets | Hashes, reader: str, ids: Any) -> list[list[int]]:
    """[n, chunks] of one feature's ids."""
    found: list[list[int]] = addressing(tf.constant(list(ids))[:, tf.newaxis], [reader]).numpy().tolist()
    return found


def hashes(readers: dict[str, int], rows: int = 1000, method: str = "multiplexed", tables: int = 1) -> Hashes:
    if method == "hashed":
        return Hashes(HashedTable(method="hashed", rows=rows, dim=1), readers, FEATURES)
    return Hashes(MultiplexedTable(method="multiplexed", rows=rows, dim=1, tables=tables), readers, FEATURES)


def test_whose_ids_a_feature_holds() -> None:
    assert {name: vocabulary_of(name, FEATURES) for name in FEATURES} == {
        "history": "movie",
        "movie": "movie",
        "genres": "genres",
        "price": "price",
        "tag": "tag",
    }


def test_how_many_ids_a_feature_has() -> None:
    assert [vocabulary_rows(FEATURES[name]) for name in ("movie", "genres", "price")] == [50, 8, 4]
    with pytest.raises(ValueError, match="fingerprint"):
        vocabulary_rows(FEATURES["tag"])
    assert [id_limit(FEATURES[name]) for name in ("movie", "price", "tag")] == [50, 4, 2**63 - 1]


def test_offsets_put_vocabularies_one_after_the_other() -> None:
    addressing = Offsets(["history", "genres", "movie", "price"], FEATURES)
    assert addressing.rows == 50 + 8 + 4
    assert rows(addressing, "history", [0, 49]) == rows(addressing, "movie", [0, 49]) == [[0], [49]]
    assert rows(addressing, "genres", [0, 7]) == [[50], [57]]
    assert rows(addressing, "price", [0, 3]) == [[58], [61]]


def test_a_row_is_the_hash_of_owner_chunk_and_id() -> None:
    addressing = hashes({"movie": 1, "history": 2, "genres": 3})
    ids = np.arange(8)
    for reader, owner, chunks in (("movie", "movie", 1), ("history", "movie", 2), ("genres", "genres", 3)):
        expected = [
            hash_rows(tf.constant(ids), tf.constant([salt(owner, chunk)], tf.int64), 1000).numpy()
            for chunk in range(chunks)
        ]
        assert rows(addressing, reader, ids) == np.stack(expected, 1).tolist()


def test_columns_of_one_matrix_meet_their_own_salts() -> None:
    addressing = hashes({"movie": 2, "genres": 1, "history": 3}, tables=4)
    matrix = tf.constant([[1, 3, 4, 5], [2, 6, 7, 0]])
    found = addressing(matrix, ["history", "genres", "movie", "genres"]).numpy()
    columns = [
        rows(addressing, name, column)
        for name, column in zip(["history", "genres", "movie", "genres"], matrix.numpy().T, strict=True)
    ]
    np.testing.assert_array_equal(found, np.concatenate(columns, 1))
    assert found.shape == (2, 3 + 1 + 2 + 1)


@pytest.mark.parametrize("method", ["hashed", "multiplexed"])
def test_the_order_of_features_changes_no_row(method: str) -> None:
    readers = {"movie": 2, "genres": 1, "price": 3, "history": 2}
    one, other = hashes(readers, method=method), hashes(dict(reversed(readers.items())), method=method)
    for name, ids in (("movie", range(50)), ("genres", range(8)), ("price", range(4))):
        assert rows(one, name, ids) == rows(other, name, ids)


def test_a_hashed_table_gives_each_vocabulary_its_own_part_in_proportion() -> None:
    addressing = hashes({"movie": 1, "genres": 2, "history": 1, "price": 1}, rows=31, method="hashed")
    sets = {
        name: {row for id_rows in rows(addressing, name, ids) for row in id_rows}
        for name, ids in (("movie", range(50)), ("genres", range(8)), ("price", range(4)), ("history", range(50)))
    }
    assert sets["history"] == sets["movie"]
    # 31 rows for 50 + 8 + 4 ids: one each, and 28 in proportion, 22.58 + 3.61 + 1.81, by the largest remainders.
    for name, size in (("movie", 23), ("genres", 5), ("price", 3)):
        assert len(sets[name]) <= size
        assert max(sets[name]) - min(sets[name]) < size
    parts = sorted((min(sets[name]), max(sets[name])) for name in ("movie", "genres", "price"))
    assert all(before[1] < after[0] for before, after in pairwise(parts)), parts
    # The sizes themselves: with many more ids than rows, every row of a part is hit.
    large = {
        "a": CategoricalInfo(role="item", rows=5000, oov_rows=1),
        "b": CategoricalInfo(role="item", rows=800, oov_rows=1),
    }
    addressing = Hashes(HashedTable(method="hashed", rows=31, dim=1), {"a": 1, "b": 1}, large)
    counts = [len({row for (row,) in rows(addressing, name, range(info.rows))}) for name, info in large.items()]
    assert counts == [26, 5]  # one each, and 29 in proportion: 25.0 + 4.0


def test_no_part_of_a_hashed_table_is_empty() -> None:
    """A vocabulary of 4 beside one of 50: a share of 0.2 rows is still one row."""
    addressing = hashes({"movie": 1, "price": 1}, rows=3, method="hashed")
    price = {row for (row,) in rows(addressing, "price", range(4))}
    movie = {row for (row,) in rows(addressing, "movie", range(50))}
    assert len(price) == 1
    assert sorted(price | movie) == [0, 1, 2]
    assert not price & movie


def test_the_features_of_a_multiplexed_table_read_all_of_it() -> None:
    addressing = hashes({"tag": 1}, rows=40)
    assert {row for (row,) in rows(addressing, "tag", range(1000))} == set(range(40))
    assert addressing.rows == 40


def test_chunks_read_backing_tables_in_turn() -> None:
    addressing = hashes({"tag": 5, "movie": 2}, rows=40, tables=3)
    assert addressing.rows == 120
    backing = np.array(rows(addressing, "tag", range(1000))) // 40
    assert (backing == backing[0]).all(), "a chunk reads one table"
    first = backing[0][0]
    assert backing[0].tolist() == [(first + chunk) % 3 for chunk in range(5)]
    within = np.array(rows(addressing, "tag", range(1000))) % 40
    assert {tuple(sorted(set(column))) for column in within.T} == {tuple(range(40))}


def test_features_begin_with_different_backing_tables() -> None:
    """Else features of one chunk would all read the first, and the others' bytes would be wasted."""
    features = {f"f{n}": FingerprintInfo(role="item") for n in range(60)}
    config = MultiplexedTable(method="multiplexed", rows=10, dim=1, tables=3)
    addressing = Hashes(config, dict.fromkeys(features, 1), features)
    first = [int(rows(addressing, name, [1])[0][0]) // 10 for name in features]
    assert min(np.bincount(first, minlength=3)) >= 10


def test_more_rows_than_32_bits_can_number() -> None:
    addressing = hashes({"tag": 1}, rows=2**31)
    found = addressing(tf.constant([[1], [2], [3]], tf.int64), ["tag"])
    assert found.dtype == tf.int64
    many = addressing(tf.range(1000, dtype=tf.int64)[:, tf.newaxis], ["tag"])
    assert int(tf.reduce_min(many)) >= 0
    assert int(tf.reduce_max(many)) > 2**30
    assert hashes({"tag": 1})(tf.constant([[1]]), ["tag"]).dtype == tf.int32
