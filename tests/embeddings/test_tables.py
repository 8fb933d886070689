"""Tables: who shares rows, who may not, how they are read."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import FullTable, HashedTable
from recsys.embeddings.hashing import hash_rows, salt
from recsys.embeddings.tables import Table, vocabulary_of, vocabulary_rows

FEATURES: dict[str, FeatureInfo] = {
    "history": SequenceInfo(of="movie", max_length=3, age=False),
    "movie": CategoricalInfo(role="item", rows=5, oov_rows=1),
    "genres": CategoricalInfo(role="item", rows=4, oov_rows=1, max_length=2),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0)),
    "tag": FingerprintInfo(role="item"),
}
READERS = ["history", "movie", "genres", "price"]
IDS = {"history": range(5), "movie": range(5), "genres": range(4), "price": range(4)}


def full(readers: list[str] = READERS, dim: int = 1, seed: int = 0, name: str = "t") -> Table:
    return Table(name, FullTable(dim=dim), readers, FEATURES, seed)


def hashed(readers: list[str], rows: int = 1000, name: str = "t", seed: int = 0) -> Table:
    return Table(name, HashedTable(method="hashed", rows=rows, dim=1), readers, FEATURES, seed)


def rows_read(table: Table, **ids: object) -> dict[str, NDArray[np.int64]]:
    """Which rows the table reads, found by writing every row's number into it."""
    batch = {name: tf.constant(list(value)) for name, value in ids.items()}  # type: ignore[call-overload]
    table(batch)
    table.embeddings.assign(tf.range(table.rows, dtype=tf.float32)[:, tf.newaxis])
    return {name: value.numpy()[..., 0].astype(np.int64) for name, value in table(batch).items()}


def test_a_full_table_holds_every_vocabulary_once_and_apart() -> None:
    table = full()
    assert table.rows == 5 + 4 + (2 + 2)
    rows = rows_read(table, **IDS)
    np.testing.assert_array_equal(rows["history"], rows["movie"])
    distinct = np.concatenate([rows["movie"], rows["genres"], rows["price"]])
    assert sorted(distinct.tolist()) == list(range(table.rows))


@pytest.mark.parametrize("readers", [["history"], ["movie"], ["history", "movie"]])
def test_a_history_needs_no_rows_beside_its_items(readers: list[str]) -> None:
    assert full(readers).rows == 5


def test_a_history_reads_its_items_rows_of_a_hashed_table_too() -> None:
    rows = rows_read(hashed(READERS), **IDS)
    np.testing.assert_array_equal(rows["history"], rows["movie"])


def test_a_hashed_table_reads_the_row_of_owner_and_id() -> None:
    rows = rows_read(hashed(["movie", "genres"]), movie=[0, 1, 4], genres=[0, 1, 3])
    for name, ids in (("movie", [0, 1, 4]), ("genres", [0, 1, 3])):
        expected = hash_rows(tf.constant(ids, tf.int64), tf.constant([salt(name, 0)], tf.int64), 1000)
        np.testing.assert_array_equal(rows[name], expected)
    assert not np.array_equal(rows["movie"][:2], rows["genres"][:2])


def test_the_order_of_features_changes_no_row_of_a_hashed_table() -> None:
    names = ["movie", "genres", "price", "history"]
    expected = rows_read(hashed(names), **IDS)
    for readers in (names[::-1], ["tag", *names[2:], *names[:2]]):
        rows = rows_read(hashed(readers), **{name: IDS[name] for name in names[::-1]})
        for name in names:
            np.testing.assert_array_equal(rows[name], expected[name])


def test_fingerprints_use_all_of_their_bits() -> None:
    """Two fingerprints that agree in their lower 32 bits are two values."""
    fingerprints = np.array([5 + (n << 32) for n in range(100)], np.int64)
    rows = rows_read(hashed(["tag"], rows=100_000), tag=fingerprints)["tag"]
    assert len(set(rows.tolist())) > 95


@pytest.mark.parametrize(
    ("name", "value"), [("movie", 5), ("movie", -1), ("genres", 4), ("genres", -1), ("price", 4), ("history", 5)]
)
def test_an_id_outside_its_own_vocabulary_is_refused(name: str, value: int) -> None:
    """Also where the table goes on behind it with another feature's rows."""
    table = full()
    for ids in ([0, value], [[0], [value]]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            table({name: tf.constant(ids)})


def test_ids_of_any_rank_keep_their_shape() -> None:
    table = full(dim=3)
    one, two = tf.constant([1, 4]), tf.constant([[1, 0], [3, 3], [2, 1]])
    found = table({"movie": one, "history": two, "genres": tf.zeros([0, 2], tf.int32)})
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "movie": (2, 3),
        "history": (3, 2, 3),
        "genres": (0, 2, 3),
    }
    weights = table.embeddings.numpy()
    np.testing.assert_array_equal(found["movie"], weights[[1, 4]])
    np.testing.assert_array_equal(found["history"], weights[two.numpy()])


def test_gradient_reaches_the_rows_looked_up_and_no_other() -> None:
    table = full(dim=2)
    with tf.GradientTape() as tape:
        found = table({"movie": tf.constant([1, 1, 3]), "genres": tf.constant([[2, 0]])})
        loss = tf.reduce_sum(found["movie"] * [[1.0, 2.0], [10.0, 20.0], [5.0, 6.0]]) + tf.reduce_sum(found["genres"])
    gradient = tape.gradient(loss, table.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    # History and movie come first with 5 rows; genres follow.
    assert set(gradient.indices.numpy().tolist()) == {1, 3, 5 + 2, 5 + 0}
    expected = np.zeros((table.rows, 2))
    expected[[1, 3, 7, 5]] = [[11, 22], [5, 6], [1, 1], [1, 1]]
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), expected)


def test_initial_rows_are_a_function_of_seed_and_table_name() -> None:
    def initial(table: Table) -> NDArray[np.float32]:
        table({"movie": tf.constant([0])})
        return table.embeddings.numpy()

    first = initial(full(dim=64))
    assert -0.05 <= first.min() < -0.049
    assert 0.049 < first.max() <= 0.05
    assert abs(first.mean()) < 0.005
    # Whatever was made in between, and in whatever state the global generators are.
    tf.random.set_seed(7)
    initial(full(dim=64, name="other"))
    np.testing.assert_array_equal(initial(full(dim=64)), first)
    assert not np.array_equal(initial(full(dim=64, name="other")), first)
    assert not np.array_equal(initial(full(dim=64, seed=1)), first)


def test_initial_range_bounds_the_rows() -> None:
    table = Table("t", FullTable(dim=64, initial_range=0.5), ["movie"], FEATURES, 0)
    table({"movie": tf.constant([0])})
    assert 0.45 < np.abs(table.embeddings.numpy()).max() <= 0.5


def test_whose_ids_a_feature_holds() -> None:
    assert {name: vocabulary_of(name, FEATURES) for name in FEATURES} == {
        "history": "movie",
        "movie": "movie",
        "genres": "genres",
        "price": "price",
        "tag": "tag",
    }
    assert vocabulary_rows(FEATURES["price"]) == 4
    with pytest.raises(ValueError, match="fingerprint"):
        vocabulary_rows(FEATURES["tag"])
