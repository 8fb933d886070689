"""Warm start, row by row: known ids keep their rows, new ones start afresh, nothing else moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, SequenceInfo, VectorInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.tables import Vocabularies
from recsys.errors import ConfigError
from recsys.models.base import EmbeddingModel
from recsys.models.build import make_model
from recsys.models.config import RankerConfig, TwoTowerConfig
from recsys.training.warm_start import Known, WarmStart, warm_start

USERS, NEW_USERS = ["ann", "bob", "cid"], ["dan", "cid", "ann", "eve"]
"""bob is gone, dan and eve are new, cid and ann have other ids."""
FILMS, NEW_FILMS = ["alien", "brazil", "casino", "dune"], ["casino", "elf", "dune", "fargo", "alien"]

DEEP = RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [5]}})
CROSS = {"kind": "cross", "layers": 2}
TOWERS = TwoTowerConfig.model_validate(
    {"kind": "two_tower", "query": {"hidden": [6], "output_dim": 3}, "item": {"output_dim": 3}}
)


class World:
    """Features, their values and the tables that they read; a model of it has random weights, as if it were trained."""

    def __init__(
        self,
        values: Mapping[str, Sequence[str]],
        tables: Mapping[str, Any],
        readers: Mapping[str, Any],
        more: Mapping[str, FeatureInfo] | None = None,
        oov: int = 1,
    ) -> None:
        self.values = {name: np.array(texts, object) for name, texts in values.items()}
        self.oov = oov
        self.features: dict[str, FeatureInfo] = {
            name: CategoricalInfo(role="user" if "user" in name else "item", rows=1 + oov + len(texts), oov_rows=oov)
            for name, texts in self.values.items()
        }
        self.features |= dict(more or {})
        self.config = EmbeddingsConfig.model_validate({"tables": dict(tables), "features": dict(readers)})

    def frequencies(self, name: str) -> np.ndarray:
        return np.concatenate([np.zeros(1 + self.oov, np.int64), np.arange(len(self.values[name]), 0, -1)])

    def batch(self) -> dict[str, Any]:
        zeros: dict[str, dict[str, tf.Tensor]] = {"query": {}, "item": {}}
        for name, info in self.features.items():
            side = zeros["item" if info.role == "item" else "query"]
            match info:
                case NumericInfo():
                    side[name] = tf.zeros([2])
                case VectorInfo():
                    side[name] = tf.zeros([2, info.dim])
                case FingerprintInfo():
                    side[name] = tf.zeros([2], tf.int64)
                case SequenceInfo():
                    side[name] = tf.zeros([2, info.max_length], tf.int32)
                case _:
                    side[name] = tf.zeros([2], tf.int32)
        return {**zeros, "label": tf.zeros([2]), "item_index": tf.zeros([2], tf.int32)}

    def model(self, seed: int, config: RankerConfig | TwoTowerConfig = DEEP, trained: bool = False) -> Known:
        vocabularies = Vocabularies(self.frequencies, self.values.__getitem__)
        model = make_model(config, self.config, self.features, Catalogue([1]), seed, vocabularies)
        model.example_losses(self.batch(), training=False)
        if trained:
            rng = np.random.default_rng(seed)
            for variable in model.variables:
                noise = rng.normal(size=variable.shape) * 40
                variable.assign(tf.cast(noise, variable.dtype))
        return Known(model, self.values.__getitem__)

    def id(self, name: str, text: str) -> int:
        return 1 + self.oov + self.values[name].tolist().index(text)


OLD = World(
    {"user_id": USERS, "film": FILMS},
    {"user": {"dim": 4}, "film": {"dim": 4}},
    {"user_id": {"table": "user"}, "film": {"table": "film"}, "seen": {"table": "film"}},
    {
        "seen": SequenceInfo(of="film", max_length=3, age=False),
        "year": NumericInfo(role="item", transform="standardize", mean=0.0, std=1.0),
    },
)


def rows(known: Known, table: str) -> np.ndarray:
    (trained,) = known.model.embeddings.tables[table].trained()
    return np.array(tf.convert_to_tensor(trained.variable).numpy())


def dense(model: EmbeddingModel) -> dict[str, np.ndarray]:
    return {variable.name: variable.numpy() for variable in model.dense_variables()}


def grown(tables: Mapping[str, Any] = {}, readers: Mapping[str, Any] = {}, **features: Sequence[str]) -> World:
    """The old world with other users and films, and perhaps more features."""
    return World(
        # A feature in the middle: what follows it moves.
        {"user_id": NEW_USERS, **features, "film": NEW_FILMS},
        {"film": {"dim": 4}, "user": {"dim": 4}, **tables},
        {"user_id": {"table": "user"}, "film": {"table": "film"}, "seen": {"table": "film"}, **readers},
        {name: info for name, info in OLD.features.items() if name in ("seen", "year")},
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_every_row_of_a_rebuilt_vocabulary(precision: str) -> None:
    tables = {name: {"dim": 4, "precision": precision} for name in ("user", "film")}
    readers = OLD.config.model_dump()["features"]
    old = World({"user_id": USERS, "film": FILMS}, tables, readers, {"seen": OLD.features["seen"]})
    new = World({"user_id": NEW_USERS, "film": NEW_FILMS}, tables, readers, {"seen": OLD.features["seen"]})
    earlier, model, fresh = old.model(1, trained=True), new.model(2), new.model(2)
    kept = {name: rows(earlier, name) for name in tables}
    result = warm_start(model, earlier)
    assert result.rows == {"user": 2 + 2, "film": 2 + 3}
    for table, feature, texts in (("user", "user_id", NEW_USERS), ("film", "film", NEW_FILMS)):
        found, before, initial = rows(model, table), kept[table], rows(fresh, table)
        assert found.dtype == before.dtype
        np.testing.assert_array_equal(found[:2], before[:2], "missing and OOV")
        for text in texts:
            own = new.id(feature, text)
            known = text in old.values[feature]
            expected = before[old.id(feature, text)] if known else initial[own]
            np.testing.assert_array_equal(found[own], expected, text)
            assert not known or (expected != initial[own]).any()
        gone = set(old.values[feature]) - set(texts)
        assert gone
        for text in gone:
            assert not (found == before[old.id(feature, text)]).all(1).any(), text
    for table in tables:
        np.testing.assert_array_equal(rows(earlier, table), kept[table], "the earlier model stays as it is")


def test_vocabularies_that_share_a_table_keep_apart() -> None:
    """Both know `1`; in the table the users' rows begin elsewhere than before."""
    tables, readers = {"ids": {"dim": 2}}, {"film": {"table": "ids"}, "user_id": {"table": "ids"}}
    old = World({"film": ["1", "2"], "user_id": ["1", "3"]}, tables, readers)
    new = World({"film": ["0", "2", "1"], "user_id": ["3", "1"]}, tables, readers)
    earlier, model, fresh = old.model(1, trained=True), new.model(2), new.model(2)
    warm_start(model, earlier)
    before, found = rows(earlier, "ids"), rows(model, "ids")
    expected = before[[0, 1, 2, 3, 2, 4, 5, 7, 6]]  # film: 0 is new, 2, 1; user: 3, 1
    expected[2] = rows(fresh, "ids")[2]
    expected[[3, 4]] = before[[3, 2]]
    np.testing.assert_array_equal(found, expected)


def test_other_oov_rows_start_afresh() -> None:
    tables, readers = {"user": {"dim": 2}}, {"user_id": {"table": "user"}}
    old, new = (World({"user_id": USERS}, tables, readers, oov=oov) for oov in (1, 3))
    earlier, model, fresh = old.model(1, trained=True), new.model(2), new.model(2)
    warm_start(model, earlier)
    expected = np.concatenate([rows(earlier, "user")[:1], rows(fresh, "user")[1:4], rows(earlier, "user")[2:]])
    np.testing.assert_array_equal(rows(model, "user"), expected)


def test_dense_weights_are_copied_and_nothing_else_moves() -> None:
    earlier, model, fresh = OLD.model(1, TOWERS, trained=True), grown().model(2, TOWERS), grown().model(2, TOWERS)
    result = warm_start(model, earlier)
    assert (len(result.whole), result.parts, result.fresh) == (6, (), ())
    found, before = dense(model.model), dense(earlier.model)
    assert found.keys() == before.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], before[name], name)
    assert int(model.model.global_step) == 0
    others = {variable.name for variable in model.model.non_trainable_variables}
    for variable, initial in zip(model.model.variables, fresh.model.variables, strict=True):
        if variable.name in others:
            np.testing.assert_array_equal(variable.numpy(), initial.numpy(), variable.name)


def test_the_moments_of_dice_are_copied_with_its_weights() -> None:
    readers = {**OLD.config.model_dump()["features"], "seen": {"table": "film", "pooling": "none"}}
    config = RankerConfig.model_validate({"kind": "ranker", "sequence": {"kind": "din", "hidden": [5]}})
    world = World(OLD.values, OLD.config.model_dump()["tables"], readers, OLD.features)
    earlier, model = world.model(1, config, trained=True), world.model(2, config)
    result = warm_start(model, earlier)
    moments = [path for path in result.whole if "moving" in path]
    assert [path.split("/")[-1] for path in sorted(moments)] == ["moving_mean", "moving_variance"]
    assert not result.fresh
    for own, other in zip(model.model.layers, earlier.model.layers, strict=True):
        for one, known in zip(own.weights, other.weights, strict=True):
            if one is not model.model.global_step:
                np.testing.assert_array_equal(one, known)
    assert model.model.global_step == 0, "a new training"


def test_of_a_kernel_that_grows_by_a_feature_the_known_parts_are_copied() -> None:
    new = grown({"genre": {"dim": 3}}, {"genre": {"table": "genre"}}, genre=["noir", "war"])
    earlier, model, fresh = OLD.model(1, trained=True), new.model(2), new.model(2)
    (read,) = OLD.model(0).model.feature_weights()
    assert read.layout == (("user_id", 4), ("film", 4), ("seen", 4), ("year", 1))
    result = warm_start(model, earlier)
    assert result.parts == ("ranker_mlp/_layers/ranker_mlp_0/kernel",)
    assert (len(result.whole), result.fresh) == (3, ())
    assert result.rows.keys() == {"user", "film"}
    name = "ranker_mlp/ranker_mlp_0/kernel:0"
    before, found, initial = (dense(each.model)[name] for each in (earlier, model, fresh))
    # user_id 4, genre 3, film 4, seen 4, year 1
    np.testing.assert_array_equal(found, np.concatenate([before[:4], initial[4:7], before[4:]]))
    np.testing.assert_array_equal(rows(model, "genre"), rows(fresh, "genre"))


@pytest.mark.parametrize("rank", [None, 2])
def test_cross_kernels_grow_along_both_axes(rank: int | None) -> None:
    config = RankerConfig.model_validate(
        {"kind": "ranker", "interaction": {**CROSS, "projection_dim": rank}, "mlp": {"hidden": [5]}}
    )
    new = grown({"genre": {"dim": 3}}, {"genre": {"table": "genre"}}, genre=["noir", "war"])
    earlier, model, fresh = OLD.model(1, config, trained=True), new.model(2, config), new.model(2, config)
    result = warm_start(model, earlier)
    assert len(result.parts) == 2 * (2 if rank is None else 3) + 1
    known = np.r_[0:4, 7:16]
    assert model.model._cross is not None
    for own, before, initial in zip(*(each.model._cross._layers for each in (model, earlier, fresh)), strict=True):  # type: ignore[union-attr]
        for weight, source, start in zip(own.weights, before.weights, initial.weights, strict=True):
            expected = start.numpy()
            axes = [np.arange(size) if size == 2 else known for size in expected.shape]
            expected[np.ix_(*axes)] = source.numpy()
            assert not np.array_equal(expected, start.numpy())
            np.testing.assert_array_equal(weight.numpy(), expected)


def test_parts_go_by_name_where_the_width_stays() -> None:
    """One feature goes, another comes: a kernel of the same shape, and yet not to be copied whole."""

    def world(feature: str) -> World:
        return World(
            {"user_id": USERS, feature: ["a", "b"]},
            {"user": {"dim": 4}, feature: {"dim": 2}},
            {"user_id": {"table": "user"}, feature: {"table": feature}},
        )

    earlier, model, fresh = world("mood").model(1, trained=True), world("genre").model(2), world("genre").model(2)
    warm_start(model, earlier)
    name = "ranker_mlp/ranker_mlp_0/kernel:0"
    before, found, initial = (dense(each.model)[name] for each in (earlier, model, fresh))
    np.testing.assert_array_equal(found, np.concatenate([before[:4], initial[4:]]))


def test_dense_weights_of_another_shape_start_afresh() -> None:
    wider = RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [7]}})
    earlier, model, fresh = OLD.model(1, trained=True), grown().model(2, wider), grown().model(2, wider)
    result = warm_start(model, earlier)
    assert {path.rsplit("/", 2)[1] + path[-5:] for path in result.fresh} == {
        "ranker_mlp_0ernel", "ranker_mlp_0/bias", "ranker_mlp_outputernel",
    }  # fmt: skip
    found, initial = dense(model.model), dense(fresh.model)
    np.testing.assert_array_equal(
        found["ranker_mlp/ranker_mlp_0/kernel:0"], initial["ranker_mlp/ranker_mlp_0/kernel:0"]
    )
    output = "ranker_mlp/ranker_mlp_output/bias:0"
    np.testing.assert_array_equal(found[output], dense(earlier.model)[output])


def hashed(method: Mapping[str, Any], users: Sequence[str], more: Mapping[str, FeatureInfo] | None = None) -> World:
    readers = {"user_id": {"table": "t", "chunks": 2}, **{name: {"table": "t"} for name in more or {}}}
    return World({"user_id": users}, {"t": {"dim": 2, **method}}, readers, more)


MULTIPLEXED = {"method": "multiplexed", "rows": 20, "tables": 2}


def test_hashed_rows_are_copied_whole() -> None:
    tag: dict[str, FeatureInfo] = {"tag": FingerprintInfo(role="item")}
    old, new = hashed(MULTIPLEXED, USERS), hashed(MULTIPLEXED, [*USERS, "dan"], tag)
    earlier, model = old.model(1, trained=True), new.model(2)
    assert warm_start(model, earlier).rows == {"t": 40}
    np.testing.assert_array_equal(rows(model, "t"), rows(earlier, "t"))


def test_rows_of_fingerprints_do_not_depend_on_vocabularies() -> None:
    tag: dict[str, FeatureInfo] = {"tag": FingerprintInfo(role="item")}
    tables, readers = (
        {"t": {"dim": 2, **MULTIPLEXED}, "user": {"dim": 2}},
        {"tag": {"table": "t"}, "user_id": {"table": "user"}},
    )
    old, new = World({"user_id": USERS}, tables, readers, tag), World({"user_id": NEW_USERS}, tables, readers, tag)
    earlier, model = old.model(1, trained=True), new.model(2)
    warm_start(model, earlier)
    np.testing.assert_array_equal(rows(model, "t"), rows(earlier, "t"))


def refused(new: Known, earlier: Known) -> list[str]:
    before = [variable.numpy() for variable in new.model.variables]
    with pytest.raises(ConfigError) as caught:
        warm_start(new, earlier)
    for variable, value in zip(new.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, "nothing is copied")
    return [str(problem) for problem in caught.value.problems]


def test_hashed_rows_of_renumbered_ids_are_refused() -> None:
    old, new = hashed(MULTIPLEXED, USERS), hashed(MULTIPLEXED, NEW_USERS)
    (problem,) = refused(new.model(2), old.model(1))
    assert problem.startswith("embeddings.tables.t: the ids of 'user_id' read other rows")
    assert "encoding: hash" in problem


def test_parts_of_a_hashed_table_that_moved_are_refused() -> None:
    """A second feature takes rows from the first: the same ids, and other rows."""
    method = {"method": "hashed", "rows": 64}

    def world(films: Sequence[str]) -> World:
        values = {"user_id": USERS, "film": films}
        return World(values, {"t": {"dim": 2, **method}}, {name: {"table": "t"} for name in values})

    (problem,) = refused(world([*FILMS, "elf"]).model(2), world(FILMS).model(1))
    assert problem.startswith("embeddings.tables.t: the ids of 'film', 'user_id' read other rows")


CASES = {
    "method": (
        {"user": {"method": "hashed", "rows": 9, "dim": 4}},
        "embeddings.tables.user.method: hashed; expected full",
    ),
    "dim": ({"user": {"dim": 5}}, "embeddings.tables.user.dim: 5; expected 4, as in the run of training.warm_start; "),
    "precision": (
        {"user": {"dim": 4, "precision": "int8"}},
        "embeddings.tables.user.precision: int8; expected float32",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tables_that_changed_are_refused(case: str) -> None:
    tables, expected = CASES[case]
    (problem,) = refused(grown(tables).model(2), OLD.model(1))
    assert problem.startswith(expected)
    assert problem.endswith("change it back, or train without training.warm_start")


def test_all_that_does_not_fit_is_said_at_once() -> None:
    new = World(
        {"user_id": NEW_USERS, "year": ["1999"]},
        {"user": {"dim": 8}, "years": {"dim": 2}},
        {"user_id": {"table": "user"}, "year": {"table": "years"}},
    )
    problems = refused(new.model(2), OLD.model(1))
    assert [problem.split(": ")[0] for problem in problems] == ["schema.features.year", "embeddings.tables.user.dim"]
    assert "ids of a vocabulary; expected a number, standardize" in problems[0]


def test_a_feature_that_changed_its_table_is_refused() -> None:
    tables, readers = {"one": {"dim": 2}}, {"user_id": {"table": "one"}}
    old = World({"user_id": USERS}, tables, readers)
    new = World({"user_id": USERS}, {"two": {"dim": 2}}, {"user_id": {"table": "two"}})
    (problem,) = refused(new.model(2), old.model(1))
    assert problem.startswith("embeddings.features.user_id.table: two; expected one, as in")


def test_another_kind_of_model_is_refused() -> None:
    (problem,) = refused(grown().model(2, TOWERS), OLD.model(1))
    assert problem.startswith("model.kind: TwoTower; expected Ranker, as in the run of training.warm_start")


def test_a_model_without_a_common_feature_is_refused() -> None:
    new = World({"shop": ["a"]}, {"shop": {"dim": 2}}, {"shop": {"table": "shop"}})
    (problem,) = refused(new.model(2), OLD.model(1))
    assert problem.startswith("schema.features: shop; expected some of user_id, film, seen, year")


# Methods that go by frequency, or start from given vectors.


def one(table: Mapping[str, Any], users: Sequence[str]) -> World:
    return World({"user_id": users}, {"user": table}, {"user_id": {"table": "user"}})


def test_quantised_rows_keep_their_floats_and_the_codebook() -> None:
    table = {"method": "mgqe", "dim": 4, "parts": 2, "codes": 4, "tail_codes": 2}
    earlier, model, fresh = (
        one(table, USERS).model(1, trained=True),
        one(table, NEW_USERS).model(2),
        one(table, NEW_USERS).model(2),
    )
    warm_start(model, earlier)
    before, initial = rows(earlier, "user"), rows(fresh, "user")
    np.testing.assert_array_equal(rows(model, "user"), [*before[:2], initial[2], before[4], before[2], initial[5]])
    (codebook,) = [name for name in dense(model.model) if "codebook" in name]
    np.testing.assert_array_equal(dense(model.model)[codebook], dense(earlier.model)[codebook])


def test_mixed_widths_need_the_same_vocabulary() -> None:
    table = {"method": "mixed_dim", "dim": 4, "alpha": 1.0}
    many = [str(number) for number in range(8)]
    old = one(table, many)
    earlier, model = old.model(1, trained=True), old.model(2)
    assert warm_start(model, earlier).rows == {"user": 10}
    tables = model.model.embeddings.tables["user"].trained(), earlier.model.embeddings.tables["user"].trained()
    assert len(tables[0]) > 1
    for own, before in zip(*tables, strict=True):
        np.testing.assert_array_equal(own.variable.numpy(), before.variable.numpy())
    for users in (many[::-1], [*many[:-1], "new"], [*many, "new"]):
        (problem,) = refused(one(table, users).model(2), old.model(1))
        assert problem.startswith("embeddings.tables.user: widths go by frequency, and the vocabularies")


def test_given_vectors_keep_what_they_learned(tmp_path: Path) -> None:
    texts = sorted({*USERS, *NEW_USERS})
    vectors = pa.array([[float(number), 0.5] for number in range(len(texts))])
    pq.write_table(pa.table({"value": texts, "vector": vectors}), tmp_path / "v.parquet")
    table = {"method": "vector", "dim": 2, "path": str(tmp_path / "v.parquet"), "train": "fine_tuned"}

    def found(before: str, now: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        earlier = one({**table, "train": before}, USERS).model(1, trained=True)
        model, fresh = (one({**table, "train": now}, NEW_USERS).model(2) for _ in range(2))
        warm_start(model, earlier)
        return tuple(each.model.embeddings.tables["user"].store.embeddings.numpy() for each in (model, earlier, fresh))  # type: ignore[attr-defined, return-value]

    for now in ("fine_tuned", "frozen"):
        own, before, initial = found("fine_tuned", now)
        np.testing.assert_array_equal(own, [*before[:2], initial[2], before[4], before[2], initial[5]])
    own, _, initial = found("frozen", "fine_tuned")
    np.testing.assert_array_equal(own, initial)


def test_buckets_are_known_by_their_number() -> None:
    def world(*boundaries: float) -> World:
        info: dict[str, FeatureInfo] = {
            "year": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=boundaries)
        }
        return World({"user_id": USERS}, {"t": {"dim": 2}}, {"user_id": {"table": "t"}, "year": {"table": "t"}}, info)

    old, moved, more = world(1.0, 2.0), world(1.5, 2.5), world(1.0, 2.0, 3.0)
    earlier, model = old.model(1, trained=True), moved.model(2)
    warm_start(model, earlier)
    np.testing.assert_array_equal(rows(model, "t"), rows(earlier, "t"))
    model, fresh = more.model(2), more.model(2)
    warm_start(model, earlier)
    expected = np.concatenate([rows(earlier, "t")[:6], rows(fresh, "t")[6:]])  # user_id: 5 rows; missing
    np.testing.assert_array_equal(rows(model, "t"), expected)


def test_vectors_of_numbers_are_known_by_their_feature() -> None:
    def world(widths: Mapping[str, int]) -> World:
        info = NumericInfo(role="item", transform="standardize", mean=0.0, std=1.0)
        readers = {"user_id": {"table": "t"}, **{name: {"projection": width} for name, width in widths.items()}}
        return World({"user_id": USERS}, {"t": {"dim": 2}}, readers, dict.fromkeys(widths, info))

    def vectors(known: Known) -> dict[tuple[str, int], bytes]:
        weights = known.model.embeddings.number_weights()
        return {(n, len(row)): row.tobytes() for w, names in weights for n, row in zip(names, w.numpy(), strict=True)}

    old = world({"price": 2, "year": 2, "size": 3})
    earlier, same = old.model(1, trained=True), old.model(2)
    result = warm_start(same, earlier)
    assert vectors(same) == vectors(earlier)
    assert {path for path in result.whole if "numbers" in path} == {
        "embeddings/_numbers/numbers_2/vectors", "embeddings/_numbers/numbers_3/vectors",
    }  # fmt: skip
    # One comes before the others, one is gone, one has another width.
    new = world({"depth": 2, "year": 2, "size": 2})
    model, fresh = new.model(2), new.model(2)
    result = warm_start(model, earlier)
    assert "embeddings/_numbers/numbers_2/vectors" in result.parts
    found, before, initial = vectors(model), vectors(earlier), vectors(fresh)
    assert found.keys() == {("depth", 2), ("year", 2), ("size", 2)}
    assert found["year", 2] == before["year", 2]
    for name in ("depth", "size"):
        assert found[name, 2] == initial[name, 2]


def test_the_layout_is_that_of_the_vectors() -> None:
    world = World(
        {"user_id": USERS, "film": FILMS},
        {"t": {"dim": 2, **MULTIPLEXED}, "film": {"dim": 4}},
        {
            "user_id": {"table": "t", "chunks": 3},
            "film": {"table": "film"},
            "seen": {"table": "film", "pooling": "none"},
            "picture": {"projection": 2},
        },
        {
            "seen": SequenceInfo(of="film", max_length=3, age=False),
            "year": NumericInfo(role="item", transform="log", mean=0.0, std=1.0),
            "picture": VectorInfo(role="item", dim=5),
            "sound": VectorInfo(role="item", dim=3),
        },
    )
    batch, embeddings = world.batch(), world.model(0).model.embeddings
    for roles, features in ((("user", "context"), batch["query"]), (("item",), batch["item"])):
        assert embeddings.layout(*roles) == embeddings(features).layout()
    assert embeddings.layout("user") == [("user_id", 6)]


def test_it_says_what_it_did() -> None:
    text = str(WarmStart({"user": 1200, "film": 3}, ("a", "b"), ("c",), ()))
    assert text == "1,200 rows of user, 3 rows of film; 2 dense weights whole, 1 in part, 0 not"
