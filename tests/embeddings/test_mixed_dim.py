"""Mixed dimensions: who gets which width, what a lookup gives, who learns, and how many bytes are served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.mixed_dim import Block, FrequencyBlocks, frequency_blocks, id_widths
from recsys.embeddings.tables import Table, Vocabularies
from recsys.schema.config import SchemaConfig
from tests.embeddings.saved import looked_up, saved

FEATURES: dict[str, FeatureInfo] = {
    "viewer": CategoricalInfo(role="user", rows=8, oov_rows=1),
    "movie": CategoricalInfo(role="item", rows=6, oov_rows=1),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0,)),
}
COUNTS = {
    "viewer": np.array([0, 0, 40, 20, 20, 5, 5, 1]),
    "movie": np.array([0, 0, 100, 50, 13, 12]),
    "price": np.zeros(3, np.int64),
}
# 8 p / 100, rounded to a power of two: 3.2 -> 4, 1.6 -> 2, .4 -> 1; 8, 4, 1.04 -> 1.
WIDTHS = {"viewer": [4, 4, 4, 2, 2, 1, 1, 1], "movie": [8, 8, 8, 4, 1, 1], "price": [8, 8, 8]}
VOCABULARIES = Vocabularies(COUNTS.__getitem__, lambda name: np.empty(0, object))


def config(**table: object) -> EmbeddingsConfig:
    raw = {"method": "mixed_dim", "dim": 8, "alpha": 1.0, "initializer": {"range": 1.0}, **table}
    return EmbeddingsConfig.model_validate(
        {"tables": {"t": raw}, "features": {name: {"table": "t"} for name in FEATURES}}
    )


@pytest.fixture
def table() -> Table:
    made = Table("t", config(), FEATURES, VOCABULARIES, seed=0)
    made({"viewer": tf.constant([0])})
    return made


def store_of(table: Table) -> FrequencyBlocks:
    assert isinstance(table.store, FrequencyBlocks)
    return table.store


def rows_of_width(store: FrequencyBlocks, width: int) -> tf.Variable:
    return next(trained.variable for trained in store.trained() if trained.variable.shape[1] == width)


def expected_vector(store: FrequencyBlocks, name: str, id_: int) -> NDArray[np.float32]:
    """By the definition, one id at a time: a row's place is how many rows of its width stand before it."""
    width = WIDTHS[name][id_]
    before = [w for other in list(WIDTHS)[: list(WIDTHS).index(name)] for w in WIDTHS[other]] + WIDTHS[name][:id_]
    row = rows_of_width(store, width).numpy()[before.count(width)]
    return row if width == 8 else row @ store.projections[f"{name}_{width}"].numpy()


def test_widths_by_hand() -> None:
    for name, widths in WIDTHS.items():
        assert id_widths(8, 1.0, COUNTS[name], most=100).tolist() == widths


@pytest.mark.parametrize(
    ("alpha", "dim", "expected"),
    [
        (0.0, 16, [16, 16, 16, 16, 16, 16]),
        (0.5, 16, [16, 16, 16, 8, 2, 1]),  # 16, 16 sqrt(.25) = 8, 16 sqrt(.01) = 1.6, 0
        (0.5, 30, [30, 30, 30, 16, 4, 1]),  # 30, 15, 3, 0
        (0.1, 30, [30, 30, 30, 30, 16, 1]),  # 30, 26.1 -> 32, cut to 30; 18.9
    ],
)
def test_a_width_is_a_power_of_two_or_the_whole(alpha: float, dim: int, expected: list[int]) -> None:
    """Also of values that training never saw, and of a whole width that is no power of two."""
    assert id_widths(dim, alpha, np.array([0, 0, 400, 100, 4, 0]), most=400).tolist() == expected


def test_halfway_between_two_powers_is_up() -> None:
    assert id_widths(16, 0.5, np.array([0, 100, 50]), most=100).tolist() == [16, 16, 16]  # 16 / sqrt(2) = 2^3.5


def test_widths_go_by_the_largest_count_of_the_table() -> None:
    """One vocabulary's rarest value may be more frequent than all of another."""
    blocks = frequency_blocks(8, 1.0, {"gender": np.array([0, 0, 900, 800]), "viewer": np.array([0, 0, 10, 9])})
    assert blocks == [Block("gender", 0, 4, 8), Block("viewer", 4, 4, 1)]


def test_counts_that_do_not_fall_are_refused() -> None:
    with pytest.raises(ValueError, match="falling count"):
        frequency_blocks(8, 1.0, {"viewer": np.array([0, 0, 5, 6])})


def test_blocks_follow_the_tables_rows() -> None:
    assert frequency_blocks(8, 1.0, COUNTS) == [
        Block("viewer", 0, 3, 4),
        Block("viewer", 3, 2, 2),
        Block("viewer", 5, 3, 1),
        Block("movie", 8, 3, 8),
        Block("movie", 11, 1, 4),
        Block("movie", 12, 2, 1),
        Block("price", 14, 3, 8),
    ]


def test_variables_are_as_small_as_the_widths_say(table: Table) -> None:
    store = store_of(table)
    assert [tuple(trained.variable.shape) for trained in store.trained()] == [(6, 8), (4, 4), (2, 2), (5, 1)]
    assert {name: tuple(p.shape) for name, p in store.projections.items()} == {
        "viewer_4": (4, 8),
        "viewer_2": (2, 8),
        "viewer_1": (1, 8),
        "movie_4": (4, 8),
        "movie_1": (1, 8),
    }
    assert (table.store.rows, table.store.dim) == (17, 8)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_every_id_by_its_definition(table: Table, dtype: tf.DType) -> None:
    """In any order, some ids several times, some widths not at all."""
    rng = np.random.default_rng(0)
    for size in (40, 1):
        ids = {name: rng.integers(0, len(widths), size) for name, widths in WIDTHS.items()}
        groups, _ = table({name: tf.constant(value, dtype) for name, value in ids.items()})
        assert groups[0].names == ("viewer", "movie", "price")
        for column, name in enumerate(ids):
            expected = [expected_vector(store_of(table), name, id_) for id_ in ids[name]]
            np.testing.assert_allclose(groups[0].values[:, column], expected, rtol=1e-6, atol=1e-6)


def test_no_ids_give_no_vectors(table: Table) -> None:
    groups, _ = table({"viewer": tf.zeros([0], tf.int32)})
    assert groups[0].values.shape == (0, 1, 8)


def test_every_gradient_by_hand(table: Table) -> None:
    """Rows through their projection, repeated ids added up; projections from their own block's rows alone."""
    store = store_of(table)
    user, upstream = [3, 3, 5, 2], np.arange(32, dtype=np.float32).reshape(4, 8)
    variables = [trained.variable for trained in store.trained()]
    names = list(store.projections)
    with tf.GradientTape() as tape:
        groups, _ = table({"viewer": tf.constant(user)})
        loss = tf.reduce_sum(groups[0].values[:, 0] * upstream)
    of_rows, of_projections = tape.gradient(loss, [variables, [store.projections[name] for name in names]])
    touched = [set(gradient.indices.numpy().tolist()) for gradient in of_rows]
    assert touched == [set(), {2}, {0}, {0}]
    projection = {name: store.projections[name].numpy() for name in names}
    np.testing.assert_allclose(
        tf.convert_to_tensor(of_rows[2])[0], projection["viewer_2"] @ (upstream[0] + upstream[1]), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        tf.convert_to_tensor(of_rows[3])[0], projection["viewer_1"] @ upstream[2], rtol=1e-5, atol=1e-4
    )
    rows = {width: rows_of_width(store, width).numpy() for width in (4, 2, 1)}
    expected = {
        "viewer_4": np.outer(rows[4][2], upstream[3]),
        "viewer_2": np.outer(rows[2][0], upstream[0] + upstream[1]),
        "viewer_1": np.outer(rows[1][0], upstream[2]),
    }
    for name, gradient in zip(names, of_projections, strict=True):
        np.testing.assert_allclose(gradient, expected.get(name, np.zeros(gradient.shape)), rtol=1e-5)


def test_projections_are_not_the_sparse_optimizers(table: Table) -> None:
    store = store_of(table)
    sparse = {id(trained.variable) for trained in store.trained()}
    dense = [variable for variable in store.trainable_variables if id(variable) not in sparse]
    assert {id(variable) for variable in dense} == {id(variable) for variable in store.projections.values()}
    assert {trained.table for trained in store.trained()} == {"t"}


def test_one_gather_of_rows_for_each_width(table: Table) -> None:
    graph = tf.function(lambda ids: table({"viewer": ids, "movie": ids})[0][0].values)
    operations = graph.get_concrete_function(tf.TensorSpec([None], tf.int32)).graph.get_operations()
    assert sum(operation.type == "ResourceGather" for operation in operations) == 4


def test_narrow_rows_start_at_the_scale_of_wide_ones() -> None:
    counts = np.concatenate([[0], np.full(4000, 64), np.full(4000, 16)])
    store = FrequencyBlocks("t", frequency_blocks(64, 1.0, {"viewer": counts}), 64, config().tables["t"].initializer, 0)
    store.build(None)
    vectors = store.lookup(tf.range(store.rows)).numpy()
    assert {trained.variable.shape[1] for trained in store.trained()} == {64, 16}
    assert vectors[4001:].std() == pytest.approx(vectors[:4001].std(), rel=0.15)


def test_initial_values_are_a_function_of_the_seed() -> None:
    def values(seed: int) -> list[NDArray[np.float32]]:
        made = Table("t", config(), FEATURES, VOCABULARIES, seed)
        made({"viewer": tf.constant([0])})
        return [variable.numpy() for variable in made.trainable_variables]

    for first, again, other in zip(values(0), values(0), values(1), strict=True):
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_a_bundle_holds_the_blocks_and_nothing_else(tmp_path: Path) -> None:
    counts = np.sort(np.random.default_rng(0).zipf(1.3, 5000).clip(max=10**6))[::-1]
    frequencies = {"viewer": np.concatenate([[0, 0], counts]), "movie": np.concatenate([[0, 0], counts[::7]])}
    blocks = frequency_blocks(16, 0.3, frequencies)
    store = FrequencyBlocks("t", blocks, 16, config().tables["t"].initializer, 0)
    store.build(None)
    size = saved(store.serve(), tmp_path / "model")
    widths = {name: id_widths(16, 0.3, f, int(counts.max())) for name, f in frequencies.items()}
    projections = sum(16 * int(w) for w in np.concatenate([np.unique(w) for w in widths.values()]) if w < 16)
    formula = 4 * (sum(int(w.sum()) for w in widths.values()) + projections)
    assert formula < 4 * 16 * store.rows / 2
    assert size == pytest.approx(formula, rel=0.05)
    rows = np.random.default_rng(1).permutation(store.rows).astype(np.int32)
    np.testing.assert_allclose(looked_up(tmp_path / "model", rows), store.lookup(rows), rtol=1e-6, atol=1e-6)


def test_the_config_survives_a_round_trip() -> None:
    made = config(alpha=0.25)
    assert EmbeddingsConfig.model_validate(made.model_dump(mode="json")) == made


def test_what_does_not_fit_is_said() -> None:
    features = {
        "viewer": {"kind": "categorical", "role": "user", "encoding": {"kind": "hash"}},
        "movie": {"kind": "categorical", "role": "item"},
    }
    schema = SchemaConfig.model_validate({"user": "user_id", "item": "movie_id", "features": features})
    raw = {
        "tables": {"t": {"method": "mixed_dim", "dim": 8, "served_precision": "int8"}},
        "features": {"viewer": {"table": "t"}, "movie": {"table": "t", "chunks": 2}},
    }
    problems = dict(EmbeddingsConfig.model_validate(raw).problems(schema))
    assert set(problems) == {"features.viewer.table", "features.movie.chunks", "tables.t.served_precision"}
    assert "no vocabulary" in problems["features.viewer.table"]


def test_counts_are_needed() -> None:
    with pytest.raises(ValueError, match="needs the vocabularies"):
        Table("t", config(), FEATURES, None, seed=0)
