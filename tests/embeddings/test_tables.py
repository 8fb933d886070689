"""Tables: who shares rows, who may not, how they are read. (Every method: test_conformance.py.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.hashing import hash_rows, salt
from recsys.embeddings.rows import FloatRows
from recsys.embeddings.tables import Table

FEATURES: dict[str, FeatureInfo] = {
    "history": SequenceInfo(of="movie", max_length=3, age=False),
    "movie": CategoricalInfo(role="item", rows=5, oov_rows=1),
    "genres": CategoricalInfo(role="item", rows=4, oov_rows=1, max_length=2),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0)),
    "tag": FingerprintInfo(role="item"),
}
READERS = ("history", "movie", "genres", "price")
IDS = {"history": range(5), "movie": range(5), "genres": range(4), "price": range(4)}


def table(
    readers: Sequence[str] = READERS,
    seed: int = 0,
    name: str = "t",
    chunks: dict[str, int] | None = None,
    **config: Any,
) -> Table:
    """Built; a full table unless `config` says otherwise."""
    embeddings = EmbeddingsConfig.model_validate(
        {
            "tables": {name: {"dim": 1, **config}},
            "features": {reader: {"table": name, "chunks": (chunks or {}).get(reader, 1)} for reader in readers},
        }
    )
    made = Table(name, embeddings, FEATURES, None, seed)
    made.build(None)
    return made


def hashed(readers: Sequence[str], rows: int = 1000, **more: Any) -> Table:
    return table(readers, method="hashed", rows=rows, **more)


def multiplexed(readers: Sequence[str], rows: int = 1000, **more: Any) -> Table:
    return table(readers, method="multiplexed", rows=rows, **more)


def weights(made: Table) -> NDArray[np.float32]:
    assert isinstance(made.store, FloatRows)
    return made.store.embeddings.numpy()


def vectors(made: Table, **ids: Any) -> dict[str, tf.Tensor]:
    """By feature: [B, width] of single-valued ones, [B, T, width] of the others."""
    groups, many = made({name: tf.constant(value) for name, value in ids.items()})
    single = {name: group.values[:, f] for group in groups for f, name in enumerate(group.names)}
    assert not single.keys() & many.keys()
    return single | many


def rows_read(made: Table, **ids: Any) -> dict[str, NDArray[np.int64]]:
    """Which rows the table reads, found by writing every row's number into it."""
    made.store.embeddings.assign(tf.range(made.store.rows, dtype=tf.float32)[:, tf.newaxis])  # type: ignore[attr-defined]
    found = vectors(made, **{name: list(value) for name, value in ids.items()})
    return {name: np.squeeze(value.numpy(), -1).astype(np.int64) for name, value in found.items()}


def rows_one_by_one(made: Table, ids: dict[str, Any]) -> dict[str, NDArray[np.int64]]:
    """As above, for features with ids of unequal numbers: each is looked up alone."""
    return {name: rows_read(made, **{name: values})[name] for name, values in ids.items()}


def test_a_full_table_holds_every_vocabulary_once_and_apart() -> None:
    made = table()
    assert made.store.rows == 5 + 4 + (2 + 2)
    rows = rows_one_by_one(made, IDS)
    np.testing.assert_array_equal(rows["history"], rows["movie"])
    distinct = np.concatenate([rows["movie"], rows["genres"], rows["price"]])
    assert sorted(distinct.tolist()) == list(range(made.store.rows))


@pytest.mark.parametrize("readers", [["history"], ["movie"], ["history", "movie"]])
def test_a_history_needs_no_rows_beside_its_items(readers: list[str]) -> None:
    assert table(readers).store.rows == 5


@pytest.mark.parametrize("make", [hashed, multiplexed])
def test_a_history_reads_its_items_rows_of_a_table_that_hashes(make: Any) -> None:
    rows = rows_one_by_one(make(READERS), IDS)
    np.testing.assert_array_equal(rows["history"], rows["movie"])


def test_all_features_at_once_read_what_each_reads_alone() -> None:
    """In one matrix of ids, a feature's columns must meet its own offsets, salts and chunks."""
    ids = {
        "price": [3, 0, 1],
        "history": [[1, 2, 4], [3, 0, 0], [0, 0, 0]],
        "movie": [4, 1, 2],
        "genres": [[1, 3], [2, 0], [0, 0]],
    }
    for made in (
        table(dim=3),
        hashed(READERS, dim=3, chunks={"movie": 2, "genres": 3}),
        multiplexed(READERS, dim=3, tables=2, chunks={"movie": 3, "price": 2, "history": 2}),
    ):
        together = vectors(made, **ids)
        assert together.keys() == ids.keys()
        for name, value in ids.items():
            read = np.not_equal(value, 0) if np.ndim(value) == 2 else slice(None)  # all but padding
            alone = vectors(made, **{name: value})[name].numpy()
            np.testing.assert_array_equal(together[name].numpy()[read], alone[read], name)


def test_ids_of_32_and_64_bits_in_one_table() -> None:
    """Fingerprints beside a vocabulary: neither is cut to the other's width."""
    made = multiplexed(["movie", "tag"], rows=100_000)
    movie, tag = np.array([1, 4], np.int32), np.array([2**62 + 1, 5 + (1 << 32)], np.int64)
    together = rows_read(made, movie=movie, tag=tag)
    np.testing.assert_array_equal(together["movie"], rows_read(made, movie=movie)["movie"])
    np.testing.assert_array_equal(together["tag"], rows_read(made, tag=tag)["tag"])
    expected = hash_rows(tf.constant(tag), tf.constant([salt("tag", 0)], tf.int64), 100_000)
    np.testing.assert_array_equal(together["tag"], expected)


def test_fingerprints_use_all_of_their_bits() -> None:
    """Two fingerprints that agree in their lower 32 bits are two values."""
    fingerprints = np.array([5 + (n << 32) for n in range(100)], np.int64)
    for made in (hashed(["tag"], rows=100_000), multiplexed(["tag"], rows=100_000)):
        assert len(set(rows_read(made, tag=fingerprints)["tag"].tolist())) > 95


@pytest.mark.parametrize("method", ["full", "hashed", "multiplexed"])
@pytest.mark.parametrize(
    ("name", "value"), [("movie", 5), ("movie", -1), ("genres", 4), ("genres", -1), ("price", 4), ("history", 5)]
)
def test_an_id_outside_its_own_vocabulary_is_refused(method: str, name: str, value: int) -> None:
    """Also where the table goes on behind it with another feature's rows, and where a hash would swallow it."""
    made = table(method=method, **({} if method == "full" else {"rows": 1000}))
    for ids in ([0, value], [[0], [value]]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s)table_t.* {name} is outside its vocabulary"):
            made({name: tf.constant(ids)})


@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1])
def test_no_fingerprint_below_zero_or_above_the_highest(value: int) -> None:
    made = multiplexed(["tag"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)table_t.* tag is outside"):
        made({"tag": tf.constant([0, value], tf.int64)})
    assert vectors(made, tag=np.array([2**63 - 2, 0]))["tag"].shape == (2, 1)


def test_the_error_inside_a_graph_names_the_table_and_all_features_that_it_might_be() -> None:
    made = table()
    graph = tf.function(lambda ids: made(ids)[0][0].values)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)table_t.*movie, price"):
        graph({"movie": tf.constant([1]), "price": tf.constant([4])})
    assert graph({"movie": tf.constant([1]), "price": tf.constant([3])}).shape == (1, 2, 1)


def test_ids_of_any_rank_keep_their_shape() -> None:
    made = table(dim=3)
    found = vectors(made, movie=[1, 4, 0], history=[[1, 2], [3, 3], [2, 1]])
    assert {name: tuple(value.shape) for name, value in found.items()} == {"movie": (3, 3), "history": (3, 2, 3)}
    np.testing.assert_array_equal(found["movie"], weights(made)[[1, 4, 0]])
    np.testing.assert_array_equal(found["history"], weights(made)[[[1, 2], [3, 3], [2, 1]]])
    empty = vectors(made, movie=np.zeros(0, np.int32), genres=np.zeros((0, 2), np.int32))
    assert {name: tuple(value.shape) for name, value in empty.items()} == {"movie": (0, 3), "genres": (0, 2, 3)}


def test_features_with_equal_chunks_lie_side_by_side() -> None:
    """As one lookup leaves them: a stack of field vectors then costs nothing."""
    made = multiplexed(["movie", "price", "tag"], dim=3, chunks={"price": 2})
    groups, many = made({name: tf.constant([1, 2]) for name in ("movie", "price", "tag")})
    assert [(group.names, tuple(group.values.shape)) for group in groups] == [
        (("movie", "tag"), (2, 2, 3)),
        (("price",), (2, 1, 6)),
    ]
    assert many == {}


def test_gradient_reaches_the_rows_looked_up_and_no_other() -> None:
    made = table(dim=2)
    with tf.GradientTape() as tape:
        found = vectors(made, movie=[1, 1, 3], genres=[[2, 1]] * 3)
        loss = tf.reduce_sum(found["movie"] * [[1.0, 2.0], [10.0, 20.0], [5.0, 6.0]]) + tf.reduce_sum(found["genres"])
    (trained,) = made.trained()
    gradient = tape.gradient(loss, trained.source)
    assert isinstance(gradient, tf.IndexedSlices)
    # History and movie come first with 5 rows; genres follow.
    assert set(gradient.indices.numpy().tolist()) == {1, 3, 5 + 2, 5 + 1}
    expected = np.zeros((made.store.rows, 2))
    expected[[1, 3, 7, 6]] = [[11, 22], [5, 6], [3, 3], [3, 3]]
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), expected)


@pytest.mark.parametrize("make", [table, hashed, multiplexed])
def test_padding_touches_no_row_of_its_own(make: Any) -> None:
    """A row that is read counts as touched: it moves by its momentum, in a table that hashes another id's."""
    made = make(READERS, dim=2, chunks=None if make is table else {"genres": 2})
    ids = {"movie": [0, 2, 3], "history": [[0, 0], [4, 0], [0, 0]], "genres": [[3, 0], [0, 0], [0, 0]]}
    with tf.GradientTape() as tape:
        found = vectors(made, **ids)
        loss = tf.reduce_sum(found["movie"]) + tf.reduce_sum(found["history"]) + tf.reduce_sum(found["genres"])
    gradient = tape.gradient(loss, made.trained()[0].source)
    read = {"movie": [0, 2, 3, 4], "genres": [3]}  # a missing single value is one that learns
    rows = [
        row
        for name, known in read.items()
        for row in made.addressing(tf.constant(known)[:, None], [name]).numpy().ravel()
    ]
    assert set(gradient.indices.numpy().tolist()) == set(rows)
    only_padding = vectors(made, history=[[0, 0], [0, 0]], genres=[[0], [0]])
    assert {name: tuple(value.shape[:2]) for name, value in only_padding.items()} == {
        "history": (2, 2),
        "genres": (2, 1),
    }


def test_initial_rows_are_a_function_of_seed_and_table_name() -> None:
    first = weights(table(dim=64))
    assert -0.05 <= first.min() < -0.049
    assert 0.049 < first.max() <= 0.05
    assert abs(first.mean()) < 0.005
    # Whatever was made in between, and in whatever state the global generators are.
    tf.random.set_seed(7)
    other = weights(table(dim=64, name="other"))
    np.testing.assert_array_equal(weights(table(dim=64)), first)
    assert not np.array_equal(other, first)
    assert not np.array_equal(weights(table(dim=64, seed=1)), first)


def test_the_initializer_says_where_rows_start() -> None:
    uniform = weights(table(dim=512, initializer={"range": 0.5}))
    assert 0.49 < np.abs(uniform).max() <= 0.5
    np.testing.assert_allclose(uniform.std(), 0.5 / 3**0.5, rtol=0.05)
    normal = weights(table(dim=512, initializer={"kind": "normal", "stddev": 0.2}))
    # A normal cut off at two standard deviations keeps 0.880 of its own; Keras' generator does not make up for it.
    assert 0.39 < np.abs(normal).max() <= 0.4
    np.testing.assert_allclose(normal.std(), 0.880 * 0.2, rtol=0.05)
