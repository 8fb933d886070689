"""A ranker in a bundle: raw pairs in, scores out, the same numbers everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.data.catalogue import Catalogue
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import BundleError, RequestError
from recsys.export import export_ranker
from recsys.export.exporter import served_items
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from serving import Pipeline, Request
from tests.export.conftest import EMBEDDINGS, ITEMS, PROVENANCE, USERS, Exported
from tests.export.raw_requests import Raw, encode, in_a_fresh_process, random_requests, raw_items, request_of

PAIRS = 1_000
CONFIG = RankerConfig.model_validate({"kind": "ranker", "interaction": {"kind": "cross"}, "mlp": {"hidden": [16]}})
HEADS = RankerConfig.model_validate(
    {
        "kind": "ranker",
        "mlp": {"hidden": [16]},
        "loss": {"positive_weight": 5.0},
        "experts": {"count": 2},
        "heads": {"bought": {"loss": {"kind": "focal"}}, "label": {"hidden": [8]}, "loved": {}},
    }
)
LOW = {"ids": "int8", "few": "float32", "hashed": "bfloat16"}


def make_ranker(exported: Exported, config: RankerConfig) -> Ranker:
    """With scores that differ: initial rows are so small that all would be near one half."""
    plain = EMBEDDINGS.model_dump(exclude_unset=True)
    for table, precision in LOW.items():
        plain["tables"][table] |= {"served_precision": precision, "initializer": {"range": 1.0}}
    prepared = exported.prepared
    embeddings = EmbeddingsConfig.model_validate(plain)
    model = make_model(config, embeddings, prepared.info.inputs, Catalogue.of(prepared), seed=3)
    assert isinstance(model, Ranker)
    model.logits(Examples(prepared, "train", 8, seed=1).sample())
    return model


@pytest.fixture(scope="module")
def ranker(exported: Exported) -> Ranker:
    return make_ranker(exported, CONFIG)


@pytest.fixture(scope="module")
def bundle(ranker: Ranker, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_ranker(ranker, exported.prepared, tmp_path_factory.mktemp("ranker"), PROVENANCE)


@pytest.fixture(scope="module")
def pairs(exported: Exported) -> Raw:
    """Random requests, each with one of the catalogue's items."""
    items = np.random.default_rng(5).integers(0, ITEMS, PAIRS)
    catalogue = raw_items(served_items(exported.prepared), exported.prepared)
    return random_requests(exported.prepared, PAIRS) | {name: column[items] for name, column in catalogue.items()}


@pytest.fixture(scope="module")
def expected(ranker: Ranker, exported: Exported, pairs: Raw) -> np.ndarray:
    """The training graph's logits from the served rows."""
    return ranker.score(batch_of(exported, pairs), ranker.embeddings.serve()).numpy()


def batch_of(exported: Exported, pairs: Raw) -> Batch:
    encoded = encode(exported.prepared, pairs)
    items = set(exported.prepared.names("item"))
    return {
        "query": {name: ids for name, ids in encoded.items() if name not in items},
        "item": {name: ids for name, ids in encoded.items() if name in items},
    }


def test_a_fresh_process_gives_the_same_scores(bundle: Path, pairs: Raw, expected: np.ndarray, tmp_path: Path) -> None:
    found = in_a_fresh_process(bundle, pairs, tmp_path)
    np.testing.assert_array_equal(found["logit_1000"], expected)
    for size in (7, 1):
        np.testing.assert_allclose(found[f"logit_{size}"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["score_1000"], 1 / (1 + np.exp(-expected)), rtol=1e-6)
    assert np.std(expected) > 0.1, "or the comparison could not fail"


def test_a_fresh_process_gives_the_same_scores_of_every_head(exported: Exported, pairs: Raw, tmp_path: Path) -> None:
    """Experts, a loss that moves the logits, and a tower of each head."""
    ranker = make_ranker(exported, HEADS)
    bundle = export_ranker(ranker, exported.prepared, tmp_path / "heads", PROVENANCE)
    logits = ranker.scores(batch_of(exported, pairs), ranker.embeddings.serve())
    expected = {name: 1 / (1 + np.exp(-each.numpy())) for name, each in logits.items()}
    found = in_a_fresh_process(bundle, pairs, tmp_path)
    np.testing.assert_array_equal(found["logit_1000"], logits["label"])
    for output, head in {"score": "label", "score_bought": "bought", "score_loved": "loved"}.items():
        np.testing.assert_allclose(found[f"{output}_1000"], expected[head], rtol=1e-6)
        np.testing.assert_allclose(found[f"{output}_7"], expected[head], rtol=1e-4, atol=1e-6)
        assert np.std(expected[head]) > 0.02, "or the comparison could not fail"
    assert Bundle.load(bundle).manifest.heads == ("bought", "loved")
    assert not np.allclose(expected["label"], expected["loved"], atol=0.02)


def test_scores_by_name(bundle: Path, pairs: Raw, expected: np.ndarray) -> None:
    loaded = Bundle.load(bundle)
    scores = loaded.score([request_of(pairs, n) for n in range(20)])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected[:20])), rtol=1e-4)
    with pytest.raises(RequestError, match="colour"):
        loaded.score([{"colour": "red"}])


def test_it_holds_its_tables_as_they_are_served_once(bundle: Path, ranker: Ranker) -> None:
    reader = tf.train.load_checkpoint(str(Bundle.load(bundle).graph_folder("ranker") / "variables" / "variables"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for name, width in (("ids", 8 + 2), ("few", 4), ("hashed", 4)):
        rows = ranker.embeddings.tables[name].store.rows
        stored = [(types[key].name, shape) for key, shape in shapes.items() if shape[:1] == [rows]]
        assert stored == [(LOW[name], [rows, width])]


def test_the_manifest_says_that_it_ranks(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    manifest = loaded.manifest
    assert (manifest.kind, manifest.index, manifest.embedding_dim) == ("ranker", None, None)
    assert [table.precision for table in manifest.ranking.tables] == list(LOW.values())
    assert len(loaded.users) == USERS
    assert loaded.items.num_rows == manifest.catalogue_size == ITEMS
    assert pq.read_schema(bundle / "items.parquet").names[0] == "item"
    assert not (bundle / "index").exists()


def test_it_recommends_nothing_and_two_towers_rank_nothing(bundle: Path, exported: Exported) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: kind: ranker; expected two_tower; export a two_tower"):
        Pipeline(Bundle.load(bundle)).recommend(Request(features={}))
    for part in ("index", "item_tower"):
        with pytest.raises(BundleError, match="kind: ranker"):
            getattr(Bundle.load(bundle), part)
    with pytest.raises(BundleError, match="ranking: there is no ranker in this bundle"):
        Bundle.load(exported.bundle).score([{}])
