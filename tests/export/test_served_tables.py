"""Tables in a bundle below float32: what is stored and read, and that index, towers and manifest tell one story."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.data.catalogue import Catalogue
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.served import ServedFloats
from recsys.embeddings.tables import Vocabularies
from recsys.errors import ExportError
from recsys.evaluation import evaluate_model
from recsys.evaluation.config import EvaluationConfig
from recsys.export import Encoder, TowerModule
from recsys.export.config import RetrievalConfig
from recsys.models.build import make_model
from recsys.models.two_tower import TwoTower
from recsys.retrieval import ExactIndex
from tests.export.conftest import EMBEDDINGS, MODEL, Exported, export
from tests.export.raw_requests import Raw, encode, in_a_fresh_process, random_requests, raw_items, relative

TABLES = {
    "served": {
        "ids": {"served_precision": "int8"},
        "few": {"served_precision": "float16"},
        "hashed": {"served_precision": "bfloat16"},
    },
    "trained": {"ids": {"precision": "int8"}, "few": {"precision": "bfloat16"}, "hashed": {"precision": "float16"}},
}
STORED = {
    "served": {"ids": (tf.int8, 8 + 2), "few": (tf.float16, 4), "hashed": (tf.bfloat16, 4)},
    "trained": {"ids": (tf.int8, 8 + 2), "few": (tf.bfloat16, 4), "hashed": (tf.float16, 4)},
}
"""Type and width of what a bundle holds of a table."""


def small(exported: Exported, changes: dict[str, dict[str, Any]]) -> TwoTower:
    """The trained model with other tables: its own weights where they fit, initial rows elsewhere."""
    plain = EMBEDDINGS.model_dump(exclude_unset=True)
    for table, change in changes.items():
        plain["tables"][table] |= change
    embeddings = EmbeddingsConfig.model_validate(plain)
    prepared = exported.prepared
    vocabularies = Vocabularies(prepared.frequencies, prepared.vocabulary)
    model = make_model(MODEL, embeddings, prepared.info.inputs, Catalogue.of(prepared), 1, vocabularies)
    assert isinstance(model, TwoTower)
    model.example_losses(Examples(prepared, "train", 8, seed=1).sample(), training=False)
    trained = {weight.name: weight for weight in exported.model.weights}
    for weight in model.weights:
        if weight.name in trained and weight.shape == trained[weight.name].shape and weight.dtype == tf.float32:
            weight.assign(trained[weight.name])
    return model


@pytest.fixture(scope="module", params=["served", "trained"])
def when(request: pytest.FixtureRequest) -> str:
    """When rows are below float32."""
    return request.param


@pytest.fixture(scope="module")
def low(when: str, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A bundle of low precision and its model."""
    made = replace(exported, model=small(exported, TABLES[when]))
    folder = tmp_path_factory.mktemp("low") / "bundle"
    return replace(made, bundle=export(made, RetrievalConfig(retriever_k=7), folder))


@pytest.fixture(scope="module")
def requests(exported: Exported) -> Raw:
    return random_requests(exported.prepared, 1_000)


def test_a_fresh_process_gives_the_served_graphs_vectors(low: Exported, requests: Raw, tmp_path: Path) -> None:
    served = low.model.embeddings.serve()
    encoded = encode(low.prepared, requests)
    expected = low.model.query_vectors(encoded, served)
    found = in_a_fresh_process(low.bundle, requests, tmp_path)
    np.testing.assert_array_equal(found["embedding_1000"], expected)
    best = ExactIndex(low.model.item_vectors(low.prepared.item_features, served)).search(expected, 7)
    np.testing.assert_array_equal(found["item_index"], best.ids)
    np.testing.assert_allclose(found["score"], best.scores, rtol=1e-5, atol=1e-6)


def test_rows_rounded_for_the_bundle_are_near_the_trained_ones_and_not_the_same(
    exported: Exported, requests: Raw
) -> None:
    model, encoded = small(exported, TABLES["served"]), encode(exported.prepared, requests)
    distance = relative(model.query_vectors(encoded, model.embeddings.serve()), model.query_vectors(encoded))
    assert 1e-4 < distance < 0.03
    np.testing.assert_array_equal(model.query_vectors(encoded), exported.model.query_vectors(encoded))


def test_codes_and_rows_of_mixed_widths_are_served_too(exported: Exported, requests: Raw, tmp_path: Path) -> None:
    coded = {"method": "mgqe", "parts": 4, "codes": 16, "tail_codes": 8}
    model = small(exported, {"ids": coded, "few": {"method": "mixed_dim", "alpha": 1.0}})
    folder = export(replace(exported, model=model), RetrievalConfig(retriever_k=7), tmp_path / "bundle")
    expected = model.query_vectors(encode(exported.prepared, requests), model.embeddings.serve())
    np.testing.assert_array_equal(in_a_fresh_process(folder, requests, tmp_path)["embedding_1000"], expected)
    assert relative(model.query_vectors(encode(exported.prepared, requests)), expected) < 1e-5
    ids, few, _ = Bundle.load(folder).manifest.tables
    stores = model.embeddings.tables
    assert (ids.method, ids.rows, ids.dim) == ("mgqe", stores["ids"].store.rows, 8)
    assert ids.bytes == 4 * ids.rows + 16 * 8 * 4
    assert set(ids.precision.split(", ")) == {"uint8", "float32"}
    assert (few.method, few.rows, few.dim, few.precision) == ("mixed_dim", stores["few"].store.rows, 4, "float32")


def test_the_index_holds_what_the_exported_item_tower_gives(low: Exported) -> None:
    bundle = Bundle.load(low.bundle)
    vectors = bundle.item_tower(raw_items(pq.read_table(low.bundle / "items.parquet"), low.prepared))
    np.testing.assert_array_equal(np.load(low.bundle / "index" / "vectors.npy"), vectors)


def test_the_index_is_not_of_the_float_tower(exported: Exported, tmp_path: Path) -> None:
    made = replace(exported, model=small(exported, TABLES["served"]))
    folder = export(made, RetrievalConfig(retriever_k=7), tmp_path / "bundle")
    vectors = np.load(folder / "index" / "vectors.npy")
    assert relative(vectors, made.model.item_vectors(made.prepared.item_features)) > 1e-4


def test_a_bundle_holds_each_table_once_in_its_own_precision_alone(low: Exported, when: str) -> None:
    stores = {name: table.store for name, table in low.model.embeddings.tables.items()}
    bundle = Bundle.load(low.bundle)
    for graph in ("query_tower", "item_tower", "retriever"):
        reader = tf.train.load_checkpoint(str(bundle.graph_folder(graph) / "variables" / "variables"))
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        stored = [(types[name], tuple(shape)) for name, shape in shapes.items()]
        for name, store in stores.items():
            of_this_length = [(kind, shape) for kind, shape in stored if shape[:1] == (store.rows,)]
            kind, width = STORED[when][name]
            assert of_this_length == [(kind, (store.rows, width))], (graph, name)


def test_a_table_is_read_by_one_gather(low: Exported) -> None:
    """Nothing in the graph is as long as a table, and none is read whole."""
    prepared = low.prepared
    encoder = Encoder(prepared.path, prepared.info.features, prepared.names("user", "context"))
    tower = TowerModule(low.model.query_tower, encoder, low.model.embeddings.serve())
    tables = [v.handle for v in tower.serve.variables if v.shape[:1] in {(s.rows,) for s in _stores(low)}]
    inside = [tensor for handle, tensor in tower.serve.graph.captures if any(handle is table for table in tables)]
    assert len(inside) == 3
    readers = [sorted(op.type for op in tensor.consumers()) for tensor in inside]
    assert readers == [["ResourceGather"]] * 3


def _stores(exported: Exported) -> Iterator[Any]:
    return (table.store for table in exported.model.embeddings.tables.values())


def test_the_manifest_tells_of_every_table(low: Exported, when: str) -> None:
    facts = {table.name: table for table in Bundle.load(low.bundle).manifest.tables}
    assert list(facts) == list(STORED[when])
    for name, table in low.model.embeddings.tables.items():
        kind, width = STORED[when][name]
        assert facts[name].precision == kind.name
        assert facts[name].rows == table.store.rows
        assert facts[name].bytes == table.store.rows * width * kind.size
    assert [facts[name].dim for name in facts] == [8, 4, 4]
    assert [facts[name].method for name in facts] == ["full", "full", "multiplexed"]
    assert facts["ids"].features == ("member", "film", "recent")
    assert facts["hashed"].rows == 64


def test_the_manifest_of_float_tables(exported: Exported) -> None:
    facts = Bundle.load(exported.bundle).manifest.tables
    assert {table.precision for table in facts} == {"float32"}
    assert [table.bytes for table in facts] == [table.rows * table.dim * 4 for table in facts]


@pytest.mark.parametrize(
    ("table", "value", "text"),
    [
        ("ids", np.nan, "too large for 8 bits with a float16 scale, or not finite"),
        ("few", 70_000.0, "not finite as float16"),
        ("hashed", np.inf, "not finite as bfloat16"),
    ],
)
def test_a_number_that_the_precision_cannot_hold_is_named(
    exported: Exported, table: str, value: float, text: str, tmp_path: Path
) -> None:
    model = small(exported, TABLES["served"])
    rows = model.embeddings.tables[table].store.embeddings
    rows.assign(tf.tensor_scatter_nd_update(rows, [[1, 0]], [value]))
    with pytest.raises(ExportError, match=rf"^embeddings\.tables\.{table}: .*{text}.*; set served_precision"):
        export(replace(exported, model=model), RetrievalConfig(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_evaluated_as_it_is_served(exported: Exported) -> None:
    model, config = exported.model, EvaluationConfig(ks=(10,))
    trained = evaluate_model(model, exported.prepared, "test", config, validation=True).metrics
    same = evaluate_model(model, exported.prepared, "test", config, validation=True, served=model.embeddings.serve())
    assert same.metrics == trained
    zeros = {
        name: ServedFloats(np.zeros((table.store.rows, table.store.dim), np.float32), tf.float32)
        for name, table in model.embeddings.tables.items()
    }
    without = evaluate_model(model, exported.prepared, "test", config, validation=True, served=zeros).metrics
    assert without["model"] != trained["model"]
