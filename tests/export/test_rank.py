"""The signature `rank` of an exported ranker: one user's raw features once, K items, the scores of as many pairs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.data.catalogue import Catalogue
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import BundleError, RequestError
from recsys.export import export_ranker
from recsys.export.exporter import served_items
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.export.conftest import EMBEDDINGS, ITEMS, PROVENANCE, Exported
from tests.export.raw_requests import random_requests, raw_items, request_of

SEQUENCES: dict[str, dict[str, Any]] = {
    "pooled": {},
    "mean": {"kind": "mean"},
    "din": {"kind": "din", "hidden": [8]},
    "twin": {"kind": "attention", "top_k": 2, "time_dim": 2},
    "dare": {"kind": "attention", "top_k": 2},
}
USERS = 6
ALONE = """
import sys
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
arrays = dict(np.load(sys.argv[2]))
texts = {name: tf.constant(a.astype(object), tf.string) for name, a in arrays.items() if a.dtype.kind == "U"}
tensors = {name: texts[name] if name in texts else tf.constant(a) for name, a in arrays.items()}
np.savez(sys.argv[3], **{name: found.numpy() for name, found in model.signatures["rank"](**tensors).items()})
assert not {"recsys", "tf_keras", "tensorflow_recommenders", "serving"} & set(sys.modules)
"""


def ranker_of(exported: Exported, sequence: str) -> Ranker:
    """With initial weights."""
    plain = EMBEDDINGS.model_dump(exclude_unset=True)
    for table in plain["tables"].values():
        table["initializer"] = {"range": 0.3}
    config: dict[str, Any] = {"kind": "ranker", "interaction": {"kind": "cross"}, "mlp": {"hidden": [16]}}
    if sequence != "pooled":
        config["sequence"] = SEQUENCES[sequence]
        plain["features"]["recent"] = {"table": "ids", "pooling": "none"}
    if sequence == "dare":
        plain["tables"]["searched"] = {"dim": 3, "initializer": {"range": 1.0}}
        for name in ("recent", "film"):
            plain["features"][name]["attention_table"] = "searched"
    prepared = exported.prepared
    model = make_model(
        RankerConfig.model_validate(config),
        EmbeddingsConfig.model_validate(plain),
        prepared.info.inputs,
        Catalogue.of(prepared),
        seed=3,
    )
    assert isinstance(model, Ranker)
    model.logits(Examples(prepared, "train", 8, seed=1).sample())
    return model


ONE = pytest.mark.parametrize("bundle", ["dare"], indirect=True)


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    ranker, folder = ranker_of(exported, request.param), tmp_path_factory.mktemp(request.param)
    return Bundle.load(export_ranker(ranker, exported.prepared, folder, PROVENANCE))


@pytest.fixture(scope="module")
def requests(exported: Exported) -> list[dict[str, object]]:
    """Of users and their context; one of them has no history."""
    raw = random_requests(exported.prepared, USERS, seed=4)
    raw["hour"][:] = 2.0  # far from its mean it would decide alone
    raw["recent"][0], raw["studios"][0], raw["recent.age"][0] = "", "", 0.0
    return [request_of(raw, row) for row in range(USERS)]


@pytest.fixture(scope="module")
def items(exported: Exported) -> list[dict[str, object]]:
    catalogue = raw_items(served_items(exported.prepared), exported.prepared)
    return [request_of(catalogue, row) for row in range(ITEMS)]


@pytest.mark.parametrize("bundle", SEQUENCES, indirect=True)
def test_candidates_have_the_scores_of_pairs(
    bundle: Bundle, requests: list[dict[str, object]], items: list[dict[str, object]]
) -> None:
    for request in requests:
        pairs = bundle.ranker.all(bundle.pair_encoder.encode([request | item for item in items]))
        assert np.std(pairs["logit"]) > 0.01, "or the comparison could not fail"
        arrays = {**bundle.query_encoder.encode([request]), **bundle.item_encoder.encode(items)}
        found = bundle.candidate_ranker.all(arrays)
        np.testing.assert_allclose(found["logit"], pairs["logit"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(bundle.rank(request, items), found["score"])
    np.testing.assert_allclose(bundle.rank(requests[1], items[:1]), bundle.score([requests[1] | items[0]]), rtol=1e-5)
    assert bundle.rank(requests[1], []).shape == (0,)


@pytest.mark.parametrize("bundle", SEQUENCES, indirect=True)
def test_several_requests_in_one_call_have_the_scores_of_each(
    bundle: Bundle, requests: list[dict[str, object]], items: list[dict[str, object]]
) -> None:
    """Histories, sets of values and numbers of candidates differ in length; one request has no candidates."""
    counts = [7, 0, 20, 1, 3, 5]
    queries = [bundle.query_encoder.encode([request]) for request in requests]
    candidates = [bundle.item_encoder.encode(items[n : n + count]) for n, count in enumerate(counts)]
    found = bundle.rank_many(queries, candidates)
    assert [len(scores) for scores in found] == counts
    for n, (request, count) in enumerate(zip(requests, counts, strict=True)):
        np.testing.assert_allclose(found[n], bundle.rank(request, items[n : n + count]), rtol=1e-5, atol=1e-6)
    (alone,) = bundle.rank_many(queries[2:3], [bundle.item_encoder.encode(items)])
    np.testing.assert_allclose(alone, bundle.rank(requests[2], items), rtol=1e-5, atol=1e-6)
    assert np.std(alone) > 0.001, "or the comparison could not fail"


@ONE
def test_a_process_with_tensorflow_alone_ranks(
    bundle: Bundle, requests: list[dict[str, object]], items: list[dict[str, object]], tmp_path: Path
) -> None:
    arrays = {**bundle.query_encoder.encode(requests[2:3]), **bundle.item_encoder.encode(items)}
    plain = {name.replace(".", "_"): a.astype(str) if a.dtype == object else a for name, a in arrays.items()}
    np.savez(tmp_path / "in.npz", **plain)  # type: ignore[arg-type]
    paths = [str(bundle.graph_folder("ranker")), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *paths], check=True, env={"PATH": os.environ["PATH"]})
    found = np.load(tmp_path / "out.npz")
    expected = bundle.score([requests[2] | item for item in items])
    np.testing.assert_allclose(found["score"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["score"], 1 / (1 + np.exp(-found["logit"])), rtol=1e-5)


@ONE
def test_what_is_wrong_is_said_by_its_place(bundle: Bundle, items: list[dict[str, object]]) -> None:
    with pytest.raises(RequestError, match="film: no such feature"):
        bundle.rank({"film": "x"}, items)
    with pytest.raises(RequestError, match=r"requests\[1\].features.member: no such feature"):
        bundle.rank({}, [items[0], {"member": "u"}])


@ONE
def test_a_bundle_without_it_says_so(exported: Exported, bundle: Bundle, items: list[dict[str, object]]) -> None:
    with pytest.raises(BundleError, match="has no signature other"):
        bundle.ranker.signature("other")
    retriever = Bundle.load(exported.bundle)
    with pytest.raises(BundleError, match="there is no ranker in this bundle"):
        retriever.rank({}, items)
