"""What a bundle's ranker looked at: the model's own weights, for raw pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.data.catalogue import Catalogue
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import BundleError
from recsys.export import export_ranker
from recsys.export.exporter import served_items
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.export.conftest import EMBEDDINGS, ITEMS, PROVENANCE, Exported
from tests.export.raw_requests import Raw, encode, random_requests, raw_items, request_of

PAIRS = 60
ONE = {"dim": 8, "initializer": {"range": 1.0}}
NUMBERS = ("taste", "price", "hour", "hours")
EXPLAINED: dict[str, dict[str, Any]] = {
    "autoint": {"interaction": {"kind": "autoint", "layers": 2, "head_dim": 4}},
    "arm_net": {"interaction": {"kind": "arm_net", "neurons": 3, "heads": 2}},
    "twin": {"sequence": {"kind": "attention", "top_k": 2}},
    "both": {"sequence": {"kind": "din", "hidden": [4]}, "interaction": {"kind": "autoint", "layers": 1}},
}


def ranker(exported: Exported, config: dict[str, Any]) -> Ranker:
    plain = EMBEDDINGS.model_dump(exclude_unset=True)
    tables = {"ids": ONE | {"served_precision": "int8"}, "few": ONE, "hashed": ONE | plain["tables"]["hashed"]}
    tables["hashed"]["dim"] = 8
    features = plain["features"] | {name: {"projection": 8} for name in NUMBERS}
    features["recent"] = {"table": "ids", "pooling": "none"}
    prepared = exported.prepared
    model = make_model(
        RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [4]}} | config),
        EmbeddingsConfig.model_validate({"tables": tables, "features": features}),
        prepared.info.inputs,
        Catalogue.of(prepared),
        seed=3,
    )
    assert isinstance(model, Ranker)
    model.example_losses(Examples(prepared, "train", 8, seed=1).sample(), training=False)
    return model


@pytest.fixture(scope="module")
def pairs(exported: Exported) -> Raw:
    items = np.random.default_rng(5).integers(0, ITEMS, PAIRS)
    catalogue = raw_items(served_items(exported.prepared), exported.prepared)
    return random_requests(exported.prepared, PAIRS) | {name: column[items] for name, column in catalogue.items()}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_bundle_looks_where_the_model_does(name: str, exported: Exported, pairs: Raw, tmp_path: Path) -> None:
    model = ranker(exported, EXPLAINED[name])
    bundle = Bundle.load(export_ranker(model, exported.prepared, tmp_path / "bundle", PROVENANCE))
    found = bundle.explain([request_of(pairs, n) for n in range(PAIRS)])
    encoded = encode(exported.prepared, pairs)
    expected = model.looks({"query": encoded, "item": {}}, model.embeddings.serve())
    assert found.keys() == {*expected, "fields"}
    assert tuple(found["fields"]) == model.field_names
    for what, weights in expected.items():
        np.testing.assert_allclose(found[what], weights, rtol=1e-4, atol=1e-6, err_msg=what)
        assert np.std(weights, 0).max() > 1e-2, "or the weights of other pairs would do"
    for what in found.keys() & {"attention", "gates"}:
        np.testing.assert_allclose(found[what].sum(-1), 1.0, rtol=1e-5)
        assert found[what].shape[-1] == len(found["fields"])
    if "history" in found:
        there = (encoded["recent"] != 0).any(1)
        assert 0 < there.sum() < PAIRS
        np.testing.assert_allclose(found["history"].sum(1), there, rtol=1e-5)


def test_what_weighs_nothing_has_no_such_signature(exported: Exported, pairs: Raw, tmp_path: Path) -> None:
    model = ranker(exported, {"interaction": {"kind": "cross"}})
    bundle = Bundle.load(export_ranker(model, exported.prepared, tmp_path / "bundle", PROVENANCE))
    pair = request_of(pairs, 0)
    assert 0 < bundle.score([pair])[0] < 1
    with pytest.raises(BundleError, match="ranker/1: has no signature explain; expected a ranker whose layers weigh"):
        bundle.explain([pair])
    with pytest.raises(BundleError, match="ranking: there is no ranker in this bundle"):
        Bundle.load(exported.bundle).explain([pair])
