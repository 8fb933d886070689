"""One bundle that retrieves and ranks: what a server does with it, by columns, is what the two models do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys.bundle import Bundle, RequestEncoder, batch
from recsys.bundle.catalogue_update import next_bundle
from recsys.bundle.columns import missing
from recsys.bundle.manifest import CategoricalField, Manifest, RawField
from recsys.bundle.new_items import NewItems
from recsys.bundle.users import RAW
from recsys.errors import DataError
from recsys.evaluation.inspection import inspect_bundle
from recsys.export import Provenance, RankingStage, export_two_tower
from recsys.export.config import RetrievalConfig
from recsys.models.ranker import Ranker
from serving.pipeline.profiles import Profiles
from serving.pipeline.shelf import Shelf
from tests.export.conftest import ITEMS, PROVENANCE, USERS, Exported
from tests.export.raw_requests import Raw, encode
from tests.export.test_rank import ranker_of

ASKING = np.array([3, 0, 17])
CANDIDATES = 20
ALONE = """
import sys
import numpy as np
from recsys.bundle import Bundle

bundle, rows = Bundle.load(sys.argv[1]), np.array(eval(sys.argv[2]))
found = bundle.index.search(bundle.query_tower(bundle.queries(rows, bundle.manifest.request)), int(sys.argv[3])).ids
queries = bundle.queries(rows, bundle.ranking.request)
ranked, pairs = [], []
for n, candidates in enumerate(found):
    query, items = {name: array[n : n + 1] for name, array in queries.items()}, bundle.candidates(candidates)
    ranked.append(bundle.candidate_ranker.all({**query, **items})["logit"])
    repeated = {name: np.repeat(array, len(candidates), 0) for name, array in query.items()}
    pairs.append(bundle.ranker.all({**repeated, **items})["logit"])
assert not {"recsys.models", "recsys.data", "tensorflow_recommenders"} & set(sys.modules)
np.savez(sys.argv[4], found=found, ranked=np.array(ranked), pairs=np.array(pairs))
"""


@pytest.fixture(scope="module")
def ranker(exported: Exported) -> Ranker:
    return ranker_of(exported, "din")


@pytest.fixture(scope="module")
def bundle(exported: Exported, ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    stage = RankingStage(ranker, Provenance("second", "2" * 64, {"auc": 0.7}))
    config = RetrievalConfig.model_validate({"index": {"kind": "exact"}})
    folder = tmp_path_factory.mktemp("both")
    return Bundle.load(export_two_tower(exported.model, exported.prepared, config, folder, PROVENANCE, ranker=stage))


def test_the_manifest_tells_of_both_stages(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.kind, manifest.name, manifest.ranking.name) == ("two_tower", "small", "second")  # type: ignore[union-attr]
    assert (bundle.ranking.metrics, bundle.ranking.config_digest) == ({"auc": 0.7}, "2" * 64)
    assert (bundle.ranking.request, bundle.ranking.item) == (manifest.request, manifest.item)
    assert {path.name for path in bundle.folder.iterdir() if path.is_dir()} == {
        "index", "query_tower", "item_tower", "retriever", "ranker",
    }  # fmt: skip
    tables = inspect_bundle(bundle)
    assert [table.name for table in tables] == ["ids", "few", "hashed", "ranker ids", "ranker few", "ranker hashed"]


def test_the_catalogues_columns_are_encoded_as_requests_are(bundle: Bundle) -> None:
    rows = np.array([5, 59, 0, 5, 3, 8, 9])  # some without genres, studio or price
    table = bundle.items.select([f"{RAW}{name}" for name in bundle.manifest.item]).take(rows)
    requests = table.rename_columns(list(bundle.manifest.item)).to_pylist()
    found, expected = bundle.candidates(rows), bundle.item_encoder.encode(requests)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype
    assert bundle.candidates(np.array([], np.int64))["film"].shape == (0,)


def test_known_users_columns_are_encoded_as_their_requests_are(bundle: Bundle) -> None:
    profiles = Profiles(bundle)
    shelf = Shelf(bundle.items, bundle.rows_of(bundle.items), bundle.filters, bundle.index)
    names = bundle.users.names(USERS)
    requests = [profiles.of(name, None, None, shelf).features for name in names]
    rows = np.arange(USERS)[::-1]
    found = bundle.queries(rows, bundle.manifest.request)
    expected = bundle.query_encoder.encode([requests[row] for row in rows])
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_is_not_said_is_encoded_as_an_empty_request(bundle: Bundle) -> None:
    fields: dict[str, RawField] = {**bundle.manifest.request, **bundle.manifest.item}
    expected = RequestEncoder(fields).encode([{}, {}])
    for name, array in missing(fields, 2).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_fresh_process_ranks_what_it_retrieved_as_the_training_graphs_do(
    bundle: Bundle, exported: Exported, ranker: Ranker, tmp_path: Path
) -> None:
    asking = [str(bundle.folder), str(ASKING.tolist()), str(CANDIDATES), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", ALONE, *asking], check=True)
    answer = np.load(tmp_path / "out.npz")
    prepared = exported.prepared
    raw: Raw = bundle.queries(ASKING, bundle.manifest.request)
    query, item = encode(prepared, raw), prepared.item_features
    vectors = exported.model.item_vectors(item, exported.model.embeddings.serve())
    scores = exported.model.query_vectors(query, exported.model.embeddings.serve()) @ vectors.T
    np.testing.assert_array_equal(answer["found"], np.argsort(-scores, 1)[:, :CANDIDATES])
    for n, candidates in enumerate(answer["found"]):
        batch = {
            "query": {name: np.repeat(values[n : n + 1], CANDIDATES, 0) for name, values in query.items()},
            "item": {name: values[candidates] for name, values in item.items()},
        }
        expected = ranker.score(batch, ranker.embeddings.serve()).numpy()
        assert np.std(expected) > 0.01, "or the comparison could not fail"
        np.testing.assert_array_equal(answer["pairs"][n], expected)
        np.testing.assert_allclose(answer["ranked"][n], expected, rtol=1e-5, atol=1e-6)


def test_both_stages_work_by_name(bundle: Bundle) -> None:
    request, indices = {"member": "u00", "age": 31.0}, np.arange(ITEMS)
    table = bundle.items.select([f"{RAW}{name}" for name in bundle.manifest.item])
    items = table.rename_columns(list(bundle.manifest.item)).to_pylist()
    scores = bundle.rank_items(request, indices)
    np.testing.assert_array_equal(scores, bundle.rank(request, items))
    np.testing.assert_allclose(scores, bundle.score([request | item for item in items]), rtol=1e-5)
    assert bundle.explain([request | items[0]])["history"].shape[0] == 1
    assert bundle.embed([request]).shape == (1, 8)


def test_many_users_are_recommended_what_the_ranker_puts_first(bundle: Bundle) -> None:
    (table,) = batch.recommend(bundle, np.array([3, 7]), k=4, candidates=CANDIDATES)
    assert table.column_names == ["user", "rank", "item", "score", "retrieval_score"]
    for n, row in enumerate([3, 7]):
        answer = table.slice(4 * n, 4)
        query = bundle.queries(np.array([row]), bundle.manifest.request)
        found = bundle.index.search(bundle.query_tower(query), CANDIDATES, bundle.users.all_seen(np.array([row])))
        scores = bundle.candidate_ranker({**query, **bundle.candidates(found.ids[0])})
        best = np.argsort(-scores, kind="stable")[:4]
        assert answer["rank"].to_pylist() == [1, 2, 3, 4]
        assert answer["item"].to_pylist() == bundle.items["item"].take(found.ids[0][best]).to_pylist()
        np.testing.assert_allclose(answer["score"], scores[best], rtol=1e-5)
        np.testing.assert_allclose(answer["retrieval_score"], found.scores[0][best], rtol=1e-5)


def test_pairs_are_scored_in_their_context(bundle: Bundle) -> None:
    names, items = bundle.users.names(3), bundle.items["item"].to_pylist()[:3]
    pairs = pa.table({"user": names, "item": items, "hour": ["3", None, "5.5"], "device": ["tv", "", "never seen"]})
    (found,) = batch.score_pairs(bundle, pairs, "pairs")
    rows = np.arange(3)
    arrays = {**bundle.queries(rows, bundle.ranking.request), **bundle.candidates(rows)}
    arrays |= {"hour": np.array([3, np.nan, 5.5], np.float32), "device": np.array(["tv", "", "never seen"], object)}
    np.testing.assert_array_equal(found["score"], bundle.ranker(arrays))
    assert found.column_names == ["user", "item", "score"]
    for change, message in (
        ({"hour": ["3", "x", "4"]}, "the context cannot be read"),
        ({"device": [1.5, 2.5, 3.5]}, "pairs: column 'device': double; expected text or integers"),
        ({"item": ["no", "such", "item"]}, "column 'item': 3 ids that the bundle does not know, such as 'no'"),
    ):
        with pytest.raises(DataError, match=message):
            next(batch.score_pairs(bundle, pa.table({**dict(pairs.to_pydict()), **change}), "pairs"))


def test_an_update_of_the_items_keeps_the_ranker(bundle: Bundle) -> None:
    fresh = NewItems.of([{"item": "new", "film": "new", "genres": ["drama"]}], bundle.manifest)
    after = Bundle.load(next_bundle(bundle, fresh))
    assert after.manifest.ranking == bundle.manifest.ranking
    indices = np.array([1, 4])
    np.testing.assert_array_equal(after.rank_items({}, indices), bundle.rank_items({}, indices))
    assert after.rank_items({}, np.array([ITEMS])).shape == (1,)


def test_a_ranker_that_reads_what_a_request_does_not_hold_is_refused(bundle: Bundle) -> None:
    plain = bundle.manifest.model_dump()
    plain["ranking"]["request"]["mood"] = CategoricalField(role="user").model_dump()
    with pytest.raises(ValidationError, match="reads mood otherwise than the bundle's own features say"):
        Manifest.model_validate(plain)
    del plain["ranking"]["request"]["mood"], plain["files"][f"ranker/{bundle.manifest.version}/saved_model.pb"]
    with pytest.raises(ValidationError, match=r"not listed: ranker/\d+/saved_model.pb"):
        Manifest.model_validate(plain)
