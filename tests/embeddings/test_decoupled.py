"""Attention tables: a second vector for each id, from a table of any method, for the search alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, row_width
from recsys.embeddings.embedded import Embedded, Group
from recsys.schema.config import SchemaConfig
from tests.embeddings.conformance import EVERY, SCHEMA, changed, only, optimizers, stored
from tests.embeddings.methods import FEATURES, VOCABULARIES, Batch, Case, batch

SEARCHED = ("recent", "movie")
"""The history that stays a sequence, and the item feature that it repeats."""


def config(
    search: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    entries: dict[str, dict[str, Any]] | None = None,
    folder: Path = Path(),
) -> EmbeddingsConfig:
    """All features read `own`; those of `SEARCHED` read `search` as well."""
    features: dict[str, dict[str, Any]] = {name: {"table": "own"} for name in FEATURES}
    features["recent"]["pooling"] = "none"
    for name in SEARCHED:
        features[name]["attention_table"] = "search"
    for name, entry in (entries or {}).items():
        features[name] |= entry
    tables = {"own": own or {"dim": 4}, "search": search or {"dim": 3}}
    return EmbeddingsConfig.model_validate({"tables": tables, "features": features}).at(folder)


def without_search(whole: EmbeddingsConfig) -> EmbeddingsConfig:
    """The same, without the second table."""
    raw = whole.model_dump()
    del raw["tables"]["search"]
    for entry in raw["features"].values():
        entry["attention_table"] = None
    return EmbeddingsConfig.model_validate(raw)


def of_search_alone(whole: EmbeddingsConfig) -> EmbeddingsConfig:
    """The second table as if it were the only one, under its own name."""
    raw = whole.model_dump()
    del raw["tables"]["own"]
    raw["features"] = {name: {**raw["features"][name], "table": "search", "attention_table": None} for name in SEARCHED}
    return EmbeddingsConfig.model_validate(raw)


def made(what: EmbeddingsConfig) -> EmbeddingCollection:
    features = {name: info for name, info in FEATURES.items() if name in what.features}
    collection = EmbeddingCollection(what, features, 0, VOCABULARIES, step=tf.Variable(0, False, dtype=tf.int64))
    collection(batch())
    return collection


def arrays(embedded: Embedded) -> dict[str, NDArray[Any]]:
    """Vectors, and sequences with zeros for padding."""
    found = {name: vector.numpy() for name, vector in embedded.vectors().items()}
    for name, sequence in embedded.sequences.items():
        found[f"{name}[]"] = sequence.values.numpy() * sequence.mask.numpy()[..., np.newaxis]
        found[f"{name} mask"] = sequence.mask.numpy()
    return found


def assert_same(found: Embedded | None, expected: Embedded) -> None:
    assert found is not None
    one, other = arrays(found), arrays(expected)
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def assert_it_reads_both(whole: EmbeddingsConfig) -> None:
    """Each table gives what it would give if there were no other."""
    assert whole.problems(SCHEMA) == []
    found = made(whole)(batch())
    alone = made(without_search(whole))(batch())
    assert alone.attention is None
    assert_same(found, alone)
    assert_same(found.attention, made(of_search_alone(whole))(batch()))
    np.testing.assert_array_equal(found.concat(), alone.concat())
    assert found.layout() == alone.layout()


@EVERY
def test_every_method_can_be_searched(case: Case, folder: Path) -> None:
    chunks = {name: {"chunks": case.chunks} for name in SEARCHED}
    whole = config(case.table, entries=chunks, folder=folder)
    assert_it_reads_both(whole)
    found = made(whole)(batch()).attention
    assert found is not None
    width = row_width(whole.tables["search"]) * case.chunks
    assert found.layout() == [("movie", width)]
    assert found.sequences["recent"].values.shape == (6, 4, width)


@only(lambda case: case.readers == tuple(FEATURES))  # given vectors belong to one vocabulary
def test_every_method_can_be_represented_beside_a_search(case: Case) -> None:
    assert_it_reads_both(config(own=case.table, entries={name: {"chunks": case.chunks} for name in case.readers}))


def test_by_hand() -> None:
    """The movie's id is its row in both tables: no other vocabulary is in the second one."""
    collection, values = made(config()), batch()
    rows = collection.tables["search"].store.lookup(tf.range(30)).numpy()
    assert rows.shape == (30, 3)
    found = collection(values).attention
    assert found is not None
    np.testing.assert_array_equal(found.vectors()["movie"], rows[values["movie"]])
    recent, ids = found.sequences["recent"], values["recent"].numpy()
    np.testing.assert_array_equal(recent.mask, ids > 0)
    np.testing.assert_array_equal(recent.values.numpy()[ids > 0], rows[ids[ids > 0]])


def test_a_table_may_be_searched_by_some_and_represent_others() -> None:
    """One multiplexed table: the movies' search, and the users' and genres' representation."""
    shared = {"method": "multiplexed", "rows": 61, "dim": 3}
    entries = {name: {"table": "search"} for name in ("user", "genres", "price")}
    whole = config(shared, entries=entries)
    assert whole.problems(SCHEMA) == []
    assert whole.readers("search") == ["recent", "user", "movie", "genres", "price"]
    found = made(whole)(batch())
    alone = whole.model_dump()
    for name in SEARCHED:
        alone["features"][name]["attention_table"] = None
    assert_same(found, made(EmbeddingsConfig.model_validate(alone))(batch()))
    assert_same(found.attention, made(of_search_alone(whole))(batch()))


def test_one_lookup_for_each_table() -> None:
    """Of the histories, the targets and whatever else reads it; and one for a part of the features."""
    collection = made(config({"method": "multiplexed", "rows": 61, "dim": 3}, entries={"user": {"table": "search"}}))

    def gathers(names: list[str]) -> Counter[str]:
        specs = {n: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for n, v in batch().items() if n in names}

        def all_of(values: Batch) -> Any:
            embedded = collection(values)
            assert embedded.attention is not None
            searched = [*embedded.attention.vectors().values(), *embedded.attention.sequences.values()]
            return [embedded.vectors(), [getattr(each, "values", each) for each in searched]]

        operations = tf.function(all_of).get_concrete_function(specs).graph.get_operations()
        return Counter(op.type for op in operations if op.type == "ResourceGather")

    assert gathers(list(batch())) == {"ResourceGather": 2}
    assert gathers(["movie"]) == {"ResourceGather": 2}
    assert gathers(["recent", "movie"]) == {"ResourceGather": 2}


def test_without_its_features_in_the_batch_nothing_is_searched() -> None:
    assert made(config())({"user": batch()["user"]}).attention is None
    only_target = made(config())({"movie": batch()["movie"]}).attention
    assert only_target is not None
    assert (only_target.layout(), only_target.sequences) == ([("movie", 3)], {})


@only(lambda case: case.trains)
def test_each_table_learns_from_its_own_gradient_alone(case: Case, folder: Path) -> None:
    """The sparse optimizer moves rows of the search's table by a loss on the search, and no others."""
    whole = config(case.table, entries={name: {"chunks": case.chunks} for name in SEARCHED}, folder=folder)
    collection, by = made(whole), optimizers(whole)
    by.build(collection.trained())
    for table, other in (("search", "own"), ("own", "search")):
        before = {name: stored(collection, name) for name in ("own", "search")}
        with tf.GradientTape() as tape:
            embedded = collection(batch())
            found = embedded.attention if table == "search" else embedded
            assert found is not None
            loss = tf.reduce_sum(found.vectors()["movie"] ** 2) + tf.reduce_sum(found.sequences["recent"].values ** 2)
        sources = [trained.source for trained in collection.trained()]
        gradients = tape.gradient(loss, sources)
        of_other = [g for g, t in zip(gradients, collection.trained(), strict=True) if t.table == other]
        assert of_other
        assert not any(np.asarray(tf.convert_to_tensor(g)).any() for g in of_other if g is not None)
        pairs = [(g, t) for g, t in zip(gradients, collection.trained(), strict=True) if t.table == table]
        by.apply([g for g, _ in pairs], [t for _, t in pairs])
        assert any(changed(before[table], stored(collection, table)))
        assert not any(changed(before[other], stored(collection, other)))


@EVERY
def test_a_bundle_serves_both(case: Case, folder: Path) -> None:
    whole = config(case.table, entries={name: {"chunks": case.chunks} for name in SEARCHED}, folder=folder)
    collection = made(whole)
    found = collection(batch(), served=collection.serve()).attention
    alone = made(of_search_alone(whole))
    assert_same(found, alone(batch(), served=alone.serve()))


def test_the_newest_events_are_kept_in_both() -> None:
    found, values = made(config(entries={"recent": {"max_length": 2}}))(batch()), batch()["recent"].numpy()
    assert found.attention is not None
    whole = made(config())(batch()).attention
    assert whole is not None
    np.testing.assert_array_equal(found.attention.sequences["recent"].mask, found.sequences["recent"].mask)
    np.testing.assert_array_equal(
        found.attention.sequences["recent"].values[0], whole.sequences["recent"].values[0, 2:], err_msg=str(values[0])
    )


def test_chunks_are_of_the_tables_that_hash() -> None:
    """A representation by two hashes beside a search by one row for an id, and the other way round."""
    hashed, two = {"method": "multiplexed", "rows": 61, "dim": 3}, {name: {"chunks": 2} for name in SEARCHED}
    for whole, widths in ((config({"dim": 5}, hashed, two), (6, 5)), (config(hashed, {"dim": 5}, two), (5, 6))):
        assert_it_reads_both(whole)
        found = made(whole)(batch())
        assert found.attention is not None
        for embedded, width in zip((found, found.attention), widths, strict=True):
            assert dict(embedded.layout())["movie"] == width
            assert embedded.sequences["recent"].values.shape[2] == width
        assert whole.width("movie", SCHEMA.features["movie"]) == widths[0] == whole.row_width_of("recent")


def test_a_group_without_some_of_its_features() -> None:
    values = tf.reshape(tf.range(2 * 3 * 2), [2, 3, 2])
    whole = Group(("a", "b", "c"), values)
    assert whole.only({"a", "b", "c", "d"}) == [whole]
    assert whole.only({"d"}) == []
    (found,) = whole.only({"a", "c"})
    assert found.names == ("a", "c")
    np.testing.assert_array_equal(found.values, values.numpy()[:, [0, 2]])


def problems(entries: dict[str, dict[str, Any]]) -> dict[str, str]:
    return dict(config(own={"dim": 3}, entries=entries).problems(SCHEMA))


NONE_HERE = "none is given, but other histories or targets have one; give it here too, or nowhere"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"movie": {"attention_table": "own"}}, {"movie": "'own' is the feature's own table"}),
        ({"movie": {"attention_table": "serach"}}, {"movie": "no table 'serach'; the tables are own, search"}),
        ({"movie": {"attention_table": None}}, {"movie": NONE_HERE}),
        ({"recent": {"attention_table": None}}, {"recent": NONE_HERE}),
        (
            {"user": {"attention_table": "search"}},
            {"user": "only a sequence with `pooling: none` and the item feature"},
        ),
        (
            {"history": {"attention_table": "search"}},
            {"history": "only a sequence with `pooling: none` and the item feature it repeats are searched; remove it"},
        ),
        ({"history": {"pooling": "none"}}, {"history": NONE_HERE}),
        (
            {"recent": {"pooling": "mean"}},
            dict.fromkeys(SEARCHED, "only a sequence with `pooling: none` and the item feature"),
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_with_its_cure(entries: dict[str, Any], expected: dict[str, str]) -> None:
    found = problems(entries)
    places = {f"features.{name}.attention_table": text for name, text in expected.items()}
    assert found.keys() == places.keys()
    for place, text in places.items():
        assert found[place].startswith(text), found[place]


def test_targets_and_histories_may_have_different_tables_of_one_width() -> None:
    """Four tables: TWIN-4E of the DARE paper's ablation."""
    raw = config().model_dump() | {}
    raw["tables"]["targets"] = {"dim": 3}
    raw["features"]["movie"]["attention_table"] = "targets"
    assert EmbeddingsConfig.model_validate(raw).problems(SCHEMA) == []
    raw["tables"]["targets"]["dim"] = 2
    assert EmbeddingsConfig.model_validate(raw).problems(SCHEMA) == [
        (
            "features.recent.attention_table",
            "'recent' has 3 numbers there and its target 'movie' has 2; choose one width",
        )
    ]


def test_a_table_that_only_a_search_reads_is_read() -> None:
    assert config().problems(SCHEMA) == []
    assert ("tables.search", "no feature reads this table; remove it") in config(
        entries={name: {"attention_table": None} for name in SEARCHED}
    ).problems(SCHEMA)


def test_a_feature_without_a_vocabulary_is_searched_in_a_table_that_hashes() -> None:
    raw = SCHEMA.model_dump()
    raw["features"]["movie"]["encoding"] = {"kind": "hash"}
    schema = SchemaConfig.model_validate(raw)
    hashed = {"method": "multiplexed", "rows": 61, "dim": 3}
    assert config(hashed, hashed).problems(schema) == []
    found = dict(config({"dim": 3}, hashed).problems(schema))
    assert found.keys() == {f"features.{name}.attention_table" for name in SEARCHED}


def test_the_config_survives_yaml() -> None:
    again = yaml.safe_load(yaml.safe_dump(config().model_dump(mode="json")))
    assert EmbeddingsConfig.model_validate(again) == config()
