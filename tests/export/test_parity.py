"""One encoding for training and serving: raw values through the exported graph against the training graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, SequenceInfo
from recsys.data.encoding import fingerprint, oov_bucket
from recsys.export.exporter import served_users
from recsys.export.signatures import Encoder, TowerModule
from recsys.retrieval import ExactIndex
from tests.export.conftest import ITEMS, Exported
from tests.export.raw_requests import (
    UNSEEN,
    Raw,
    encode,
    in_a_fresh_process,
    random_requests,
    raw_items,
    raw_table,
    relative,
    request_of,
    tensors,
)

REQUESTS = 1_000


def module(exported: Exported, *roles: Any) -> TowerModule:
    tower = exported.model.item_tower if roles == ("item",) else exported.model.query_tower
    prepared = exported.prepared
    encoder = Encoder(prepared.path, prepared.info.features, prepared.names(*roles))
    return TowerModule(tower, encoder, exported.model.embeddings.serve())


def vectors_of(tower: TowerModule, raw: Raw) -> np.ndarray:
    return tower.serve(tensors(raw))["embedding"].numpy()


@pytest.fixture(scope="module")
def requests(exported: Exported) -> Raw:
    return random_requests(exported.prepared, REQUESTS)


@pytest.fixture(scope="module")
def expected(exported: Exported, requests: Raw) -> np.ndarray:
    """The training graph's vectors of the requests."""
    return exported.model.query_vectors(encode(exported.prepared, requests))


@pytest.fixture(scope="module")
def elsewhere(exported: Exported, requests: Raw, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What a fresh process makes of the bundle and the requests."""
    return in_a_fresh_process(exported.bundle, requests, tmp_path_factory.mktemp("fresh"))


def test_the_requests_reach_every_corner(exported: Exported, requests: Raw) -> None:
    ids = encode(exported.prepared, requests)
    info = exported.prepared.info.features["member"]
    assert isinstance(info, CategoricalInfo)
    assert info.oov_rows == 3
    assert set(range(4)) < set(ids["member"].tolist())
    lengths = (requests["recent"] != "").sum(1)
    assert lengths.min() == 0
    assert (lengths > 4).any()
    assert ((ids["recent"][:, 0] == 0) & (ids["recent"][:, 1] > 0)).any()
    assert np.isnan(requests["age"]).any()
    assert any(not text.isascii() for text in requests["member"])


def test_items_are_encoded_as_prepare_did(exported: Exported) -> None:
    prepared = exported.prepared
    raw = raw_items(pq.read_table(exported.bundle / "items.parquet"), exported.prepared)
    assert set(raw) == set(prepared.names("item"))
    item = module(exported, "item")
    encoded = item.encoder.encode(tensors(raw))
    for name, ids in prepared.item_features.items():
        assert encoded[name].dtype == ids.dtype
        np.testing.assert_array_equal(encoded[name], ids, name)
    vectors = vectors_of(item, raw)
    np.testing.assert_array_equal(vectors, exported.model.item_vectors(prepared.item_features))
    served = np.load(exported.bundle / "index" / "vectors.npy")
    np.testing.assert_array_equal(served, vectors)
    assert len(np.unique(vectors.round(4), axis=0)) == ITEMS


def test_users_are_encoded_as_prepare_did(exported: Exported) -> None:
    prepared = exported.prepared
    raw = raw_table(served_users(prepared))
    assert set(raw) == set(prepared.user_features)
    encoder = Encoder(prepared.path, prepared.info.features, list(raw))
    encoded = encoder.encode(tensors(raw))
    for name, ids in prepared.user_features.items():
        assert encoded[name].dtype == ids.dtype
        np.testing.assert_array_equal(encoded[name], ids, name)


def test_requests_are_encoded_as_in_training(exported: Exported, requests: Raw) -> None:
    prepared = exported.prepared
    encoder = Encoder(prepared.path, prepared.info.features, prepared.names("user", "context"))
    graph, plain = encoder.encode(tensors(requests)), encode(prepared, requests)
    assert set(graph) == set(plain)
    for name, values in plain.items():
        assert graph[name].dtype == values.dtype
        np.testing.assert_array_equal(graph[name], values, name)


def test_requests_give_the_training_graphs_vectors(exported: Exported, requests: Raw, expected: np.ndarray) -> None:
    tower = module(exported, "user", "context")
    np.testing.assert_array_equal(vectors_of(tower, requests), expected)
    for size in (1, 7):
        first = {name: a[:size] for name, a in requests.items()}
        alone = exported.model.query_vectors(encode(exported.prepared, first))
        np.testing.assert_array_equal(vectors_of(tower, first), alone)
        assert relative(alone, expected[:size]) <= 1e-5


def test_a_fresh_process_gives_the_same_vectors(elsewhere: dict[str, np.ndarray], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(elsewhere["embedding_1000"], expected)
    for size in (7, 1):
        assert relative(elsewhere[f"embedding_{size}"], expected) <= 1e-5
    # The comparison would show a feature that did not arrive.
    assert len(np.unique(expected.round(4), axis=0)) > 0.99 * REQUESTS


def test_the_retriever_gives_the_items_of_exact_search(
    exported: Exported, elsewhere: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    index = ExactIndex(exported.model.item_vectors(exported.prepared.item_features))
    best = index.search(expected, 7)
    np.testing.assert_array_equal(elsewhere["item_index"], best.ids)
    np.testing.assert_allclose(elsewhere["score"], best.scores, rtol=1e-5, atol=1e-6)
    names = exported.prepared.items["item"].to_pylist()
    assert elsewhere["item"].tolist() == [[names[n] for n in row] for row in best.ids]
    assert elsewhere["item_inputs"].tolist() == sorted(exported.prepared.names("item"))


def test_requests_by_name_give_the_same_vectors(exported: Exported, requests: Raw, expected: np.ndarray) -> None:
    """JSON through `Bundle.embed`: shorter lists, missing values left out."""
    by_name = [request_of(requests, n) for n in range(50)]
    bundle = Bundle.load(exported.bundle)
    assert relative(bundle.embed(by_name), expected[:50]) <= 1e-5
    assert relative(bundle.embed(by_name[:1]), expected[:1]) <= 1e-5


@pytest.mark.parametrize("oov_rows", [1, 3])
def test_unseen_text_goes_where_prepare_would_put_it(tmp_path: Path, oov_rows: int) -> None:
    known = ["b", "ä", "a"]
    (tmp_path / "vocab").mkdir()
    for name in ("one", "many"):
        pq.write_table(pa.table({"value": known, "count": [3, 2, 2]}), tmp_path / "vocab" / f"{name}.parquet")
    features: dict[str, FeatureInfo] = {
        "one": CategoricalInfo(role="item", rows=4 + oov_rows, oov_rows=oov_rows),
        "many": CategoricalInfo(role="user", rows=4 + oov_rows, oov_rows=oov_rows, max_length=2),
        "past": SequenceInfo(of="one", max_length=40, age=False),
        "print": FingerprintInfo(role="item"),
        "prints": FingerprintInfo(role="user", max_length=40),
        "trail": SequenceInfo(of="print", max_length=40, age=False),
    }
    unseen = [*UNSEEN, *(f"x{n}" for n in range(30))]
    oov = (1 + oov_bucket(pa.array(unseen), oov_rows)).tolist()
    assert set(oov) == set(range(1, 1 + oov_rows))
    prints = fingerprint(pa.array(unseen)).tolist()
    assert min(prints) > 2**32
    row = tf.constant([unseen])
    encoded = Encoder(tmp_path, features, list(features)).encode(
        {
            "one": tf.constant(["ä", "", "a", "b", *unseen]),
            "many": tf.constant([["b", "zz", "a"], ["ä", "", ""]]),
            "past": row,
            "print": tf.constant(["", *unseen]),
            "prints": row,
            "trail": row,
        }
    )
    values = {name: ids.numpy().tolist() for name, ids in encoded.items()}
    padding = [0] * (40 - len(unseen))
    assert values["one"] == [2 + oov_rows, 0, 3 + oov_rows, 1 + oov_rows, *oov]
    assert values["many"] == [[1 + oov_rows, 1 + int(oov_bucket(pa.array(["zz"]), oov_rows)[0])], [2 + oov_rows, 0]]
    assert values["past"] == [oov + padding]
    assert values["print"] == [0, *prints]
    assert values["prints"] == values["trail"] == [prints + padding]


def test_lists_may_have_no_width_at_all(exported: Exported, requests: Raw) -> None:
    none = {name: a[:3, :0] if a.ndim == 2 and name != "taste" else a[:3] for name, a in requests.items()}
    empty = {name: np.full_like(a[:3], "" if a.dtype == object else 0) if none[name].shape[-1] == 0 else a[:3]
             for name, a in requests.items()}  # fmt: skip
    tower = module(exported, "user", "context")
    np.testing.assert_array_equal(vectors_of(tower, none), vectors_of(tower, empty))
