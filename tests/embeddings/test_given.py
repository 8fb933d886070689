"""Given vectors: whose they are, what may be wrong with them, who may move them, and that they count as data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

import recsys
from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig, VectorTable
from recsys.embeddings.given import digest_with_given, given_vectors
from recsys.embeddings.rows import GivenRows
from recsys.embeddings.tables import Table, Vocabularies
from recsys.errors import DataError, TrainingError
from recsys.schema.config import SchemaConfig
from tests.embeddings.saved import looked_up, saved
from tests.trained import CONFIG

# Neither in the vocabulary's order nor all of its values, and one that is none of them.
VALUES = ["c", "not here", "a", "long name"]
VECTORS = [[5.0, 6.0], [9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]
VOCABULARY = np.array(["long name", "b", "a", "c", "long"], object)
EXPECTED = [[0, 0], [0, 0], [0, 0], [3, 4], [0, 0], [1, 2], [5, 6], [0, 0]]


def write(path: Path, value: Any = VALUES, vector: Any = VECTORS, **more: Any) -> VectorTable:
    columns = {"value": value, "vector": vector, **more}
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not None}), path)
    return VectorTable(method="vector", path=str(path), dim=2)


def read(table: VectorTable, values: NDArray[np.object_] = VOCABULARY) -> NDArray[np.float32]:
    return given_vectors(table, "film", 3 + len(values), values)


def test_vectors_go_to_their_ids_and_the_others_are_zero(tmp_path: Path) -> None:
    found = read(write(tmp_path / "v.parquet"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, EXPECTED)


@pytest.mark.parametrize(
    ("value", "vector"),
    [
        (pa.array([3, 10, 7]), pa.array([[1, 2], [3, 4], [5, 6]])),
        (pa.array([3, 10, 7], pa.int8()), pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2))),
        (pa.array(["3", "10", "7"]).dictionary_encode(), pa.array([[1, 2], [3, 4], [5, 6]], pa.large_list(pa.int64()))),
        (pa.array(["0", "3", "10", "7"])[1:], pa.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[1:]),
    ],
)  # fmt: skip
def test_numbers_are_text_and_lists_of_any_sort_are_vectors(tmp_path: Path, value: pa.Array, vector: pa.Array) -> None:
    table = write(tmp_path / "v.parquet", value, vector)
    found = read(table, np.array(["10", "3", "7"], object))
    np.testing.assert_array_equal(found[3:], [[3, 4], [1, 2], [5, 6]])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"vector": [[5.0, float("nan")], *VECTORS[1:]]}, "not finite in the vector of 'c'"),
        ({"vector": [[5.0, None], *VECTORS[1:]]}, "not finite in the vector of 'c'"),
        ({"vector": [[1e39, 1.0], *VECTORS[1:3], [1.0, float("inf")]]}, "not finite in the vector of 'c' (and 1 more)"),
        ({"vector": [*VECTORS[:2], [1.0], VECTORS[3]]}, "a vector of 1 numbers for 'a'; expected 2, the table's dim"),
        ({"vector": [*VECTORS[:2], None, None]}, "a vector of 0 numbers for 'a' (and 1 more); expected 2"),
        ({"vector": pa.array([[1.0] * 3] * 4, pa.list_(pa.float32(), 3))}, "of 3 numbers for 'c' (and 3 more)"),
        ({"vector": [1.0, 2.0, 3.0, 4.0]}, "vectors of type double"),
        ({"vector": [["x", "y"]] * 4}, "vectors of type list<"),
        ({"value": ["c", "a", "c", "b"]}, "'c' twice"),
        ({"value": ["c", None, "a", "b"]}, "1 rows without a value"),
        ({"value": [1.0, 2.0, 3.0, 4.0]}, "values of type double"),
        ({"value": ["x", "A", "C", "lon"]}, "none of the 5 values of 'film' among 4, such as 'A'"),
        ({"value": None, "name": VALUES}, "the columns vector, name; expected rows with `value`"),
        ({"vector": None}, "the columns value; expected rows with `value`"),
        ({"value": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))}, "no rows"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    path = tmp_path / "v.parquet"
    table = write(path, **change)
    with pytest.raises(DataError) as caught:
        read(table)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}: ")
    assert found in str(problem)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    table = VectorTable(method="vector", path=str(tmp_path / "v.parquet"), dim=2)
    with pytest.raises(DataError, match="no such file"):
        read(table)
    (tmp_path / "v.parquet").write_text("value,vector\n")
    with pytest.raises(DataError, match="cannot be read"):
        read(table)


FEATURES: dict[str, FeatureInfo] = {
    "film": CategoricalInfo(role="item", rows=8, oov_rows=2),
    "seen": SequenceInfo(of="film", max_length=2, age=False),
}
VOCABULARIES = Vocabularies(lambda name: np.zeros(8, np.int64), lambda name: {"film": VOCABULARY}[name])


def make_table(path: Path, **more: Any) -> tuple[Table, GivenRows]:
    write(path)
    raw = {"method": "vector", "path": path.name, "dim": 2, **more}
    config = EmbeddingsConfig.model_validate(
        {"tables": {"t": raw}, "features": {"film": {"table": "t"}, "seen": {"table": "t"}}}
    ).at(path.parent)
    table = Table("t", config, FEATURES, VOCABULARIES, seed=0)
    table({"film": tf.constant([0])})
    assert isinstance(table.store, GivenRows)
    return table, table.store


def trained_once(table: Table, store: GivenRows) -> None:
    """One step of both optimizers, by film 3 (`long name`), with a gradient of 1 for every number of its vector."""
    sparse = [(trained.source, trained.variable) for trained in store.trained()]
    known = {id(source) for source, _ in sparse}
    dense = [variable for variable in store.trainable_variables if id(variable) not in known]
    with tf.GradientTape() as tape:
        groups, many = table({"film": tf.constant([3]), "seen": tf.constant([[0, 0]])})
        loss = tf.reduce_sum(groups[0].values) + 0.0 * tf.reduce_sum(many["seen"])
    of_rows, of_dense = tape.gradient(loss, [[source for source, _ in sparse], dense])
    for gradients, variables in ((of_rows, [variable for _, variable in sparse]), (of_dense, dense)):
        if variables:
            keras.optimizers.SGD(1.0, jit_compile=False).apply_gradients(zip(gradients, variables, strict=True))


def test_frozen_vectors_stay(tmp_path: Path) -> None:
    table, store = make_table(tmp_path / "v.parquet")
    assert store.trained() == []
    assert store.trainable_variables == []
    trained_once(table, store)
    np.testing.assert_array_equal(store.embeddings, EXPECTED)


def test_fine_tuned_vectors_start_as_given_and_move_where_they_are_read(tmp_path: Path) -> None:
    table, store = make_table(tmp_path / "v.parquet", train="fine_tuned")
    np.testing.assert_array_equal(store.embeddings, EXPECTED)
    trained_once(table, store)
    moved = np.array(EXPECTED)
    moved[3] -= 1
    np.testing.assert_array_equal(store.embeddings, moved)


@pytest.mark.parametrize("train", ["frozen", "fine_tuned"])
def test_a_projection_learns_beside_them(tmp_path: Path, train: str) -> None:
    table, store = make_table(tmp_path / "v.parquet", train=train, projection=3)
    sparse = {id(trained.source) for trained in store.trained()}
    (kernel,) = (variable for variable in store.trainable_variables if id(variable) not in sparse)
    before = kernel.numpy()
    assert before.shape == (2, 3)
    groups, _ = table({"film": tf.constant([3, 6])})
    np.testing.assert_allclose(groups[0].values[:, 0], np.array([[3, 4], [5, 6]]) @ before, rtol=1e-5, atol=1e-6)
    trained_once(table, store)
    np.testing.assert_allclose(kernel, before - [[3.0] * 3, [4.0] * 3], rtol=1e-5, atol=1e-5)
    step = before.sum(1) if train == "fine_tuned" else np.zeros(2)
    np.testing.assert_allclose(store.embeddings.numpy()[3], [3, 4] - step, rtol=1e-5, atol=1e-5)


def test_a_bundle_holds_them_projected(tmp_path: Path) -> None:
    _, store = make_table(tmp_path / "v.parquet", train="fine_tuned", projection=3)
    rows = np.arange(8, dtype=np.int32)
    saved(store.serve(), tmp_path / "model")
    np.testing.assert_allclose(looked_up(tmp_path / "model", rows), store.lookup(rows), rtol=1e-6, atol=1e-6)


def test_the_config_survives_a_round_trip() -> None:
    raw = {"tables": {"t": {"method": "vector", "path": "v.parquet", "dim": 2, "projection": 4, "train": "fine_tuned"}}}
    made = EmbeddingsConfig.model_validate({**raw, "features": {"film": {"table": "t"}}})
    assert EmbeddingsConfig.model_validate(made.model_dump(mode="json")) == made


def test_what_does_not_fit_is_said() -> None:
    features = {
        "film": {"kind": "categorical", "role": "item"},
        "price": {"kind": "numeric", "role": "item", "transform": "bucketize"},
        "seen": {"kind": "sequence", "of": "film"},
    }
    schema = SchemaConfig.model_validate(
        {"user": "user_id", "item": "film_id", "timestamp": "time", "features": features}
    )

    def problems(readers: list[str], **table: Any) -> list[tuple[str, str]]:
        raw = {"method": "vector", "path": "v.parquet", "dim": 2, **table}
        entries = {name: {"table": "t" if name in readers else "other"} for name in features}
        tables = {"t": raw, **({"other": {"dim": 2}} if len(readers) < 3 else {})}
        return EmbeddingsConfig.model_validate({"tables": tables, "features": entries}).problems(schema)

    assert problems(["film", "seen"]) == []
    both, buckets = problems(["film", "seen", "price"])
    assert both[0] == buckets[0] == "tables.t"
    assert "film, price read them" in both[1]
    assert "'price' is a number in buckets" in buckets[1]
    optimizer = {"kind": "lazy_adam"}
    assert problems(["film", "seen"], optimizer=optimizer, train="fine_tuned") == []
    ((key, text),) = problems(["film", "seen"], optimizer=optimizer)
    assert key == "tables.t.optimizer"
    assert "frozen" in text


def test_the_identity_of_the_data_covers_the_vectors_contents(tmp_path: Path) -> None:
    def digest(path: Path, tables: int = 1, prepared: str = "prepared") -> str:
        raw = {f"t{n}": {"method": "vector", "path": str(path), "dim": 2} for n in range(tables)}
        return digest_with_given(EmbeddingsConfig.model_validate({"tables": raw, "features": {}}), prepared)

    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    assert digest(tmp_path / "a.parquet", tables=0) == "prepared"
    assert digest(tmp_path / "a.parquet") == digest(tmp_path / "b.parquet") != "prepared"
    assert digest(tmp_path / "a.parquet") != digest(tmp_path / "a.parquet", prepared="other")
    write(tmp_path / "b.parquet", vector=[[5.0, 6.5], *VECTORS[1:]])
    assert digest(tmp_path / "a.parquet") != digest(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no such file"):
        digest(tmp_path / "gone.parquet")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A YAML in a folder of its own, beside the vectors that it names."""
    plain = yaml.safe_load(CONFIG)
    plain["data"]["source"] |= {"users": 60, "items": 40, "events": 900}
    plain["embeddings"]["tables"]["item"] = {"method": "vector", "path": "vectors/items.parquet", "dim": 4}
    plain["training"]["epochs"] = 1
    folder = tmp_path / "project"
    (folder / "vectors").mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_an_experiment_reads_vectors_beside_its_yaml_and_refuses_others(project: Path) -> None:
    yaml_file, runs = project / "mine.yaml", Path("runs")
    experiment = recsys.Experiment.from_yaml(yaml_file, runs=runs)
    values = experiment.prepared.vocabulary("item_id")
    vectors = np.random.default_rng(0).normal(size=(len(values), 4)).astype(np.float32)
    path = project / "vectors" / "items.parquet"
    pq.write_table(pa.table({"value": values, "vector": list(vectors)}), path)
    experiment.train()
    store = experiment.model.embeddings.tables["item"].store
    assert isinstance(store, GivenRows)
    np.testing.assert_array_equal(store.embeddings[2:], vectors)
    data_digest = experiment.evaluate().data_digest
    assert recsys.Experiment.from_yaml(runs / "small").evaluate().data_digest == data_digest
    pq.write_table(pa.table({"value": values, "vector": list(-vectors)}), path)
    steps: list[Callable[[recsys.Experiment], object]] = [
        recsys.Experiment.train,
        recsys.Experiment.evaluate,
        recsys.Experiment.export,
    ]
    for step in steps:
        with pytest.raises(TrainingError, match="the files have changed since"):
            step(recsys.Experiment.from_yaml(yaml_file, runs=runs))
    assert not (runs / "small" / "bundle").exists()
