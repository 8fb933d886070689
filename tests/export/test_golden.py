"""A bundle answers its golden requests as the trained models did; one that was put together wrongly does not."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle, self_test
from recsys.bundle.golden import KNOWN, Golden, K
from recsys.errors import BundleError
from recsys.export import Encoder, RankingStage, TowerModule, export_ranker, export_two_tower
from recsys.export.config import RetrievalConfig
from recsys.models.ranker import Ranker
from tests.export.conftest import PROVENANCE, Exported
from tests.export.test_rank import ranker_of
from tests.tiny_bundle import with_digests


@pytest.fixture(scope="module")
def ranker(exported: Exported) -> Ranker:
    return ranker_of(exported, "pooled")


@pytest.fixture(scope="module")
def bundle(exported: Exported, ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage, folder = RankingStage(ranker, PROVENANCE), tmp_path_factory.mktemp("golden")
    config = RetrievalConfig.model_validate({"index": {"kind": "exact"}})
    return export_two_tower(exported.model, exported.prepared, config, folder, PROVENANCE, ranker=stage)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "bundle" / "1")


def read(folder: Path) -> Golden:
    return Golden.model_validate_json((folder / "golden.json").read_bytes())


def test_a_sound_bundle_passes(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    self_test(loaded)
    golden = read(bundle)
    assert golden.recall == 1.0
    assert sum(each.user is not None for each in golden.requests) == KNOWN
    assert [each.features for each in golden.requests[KNOWN : KNOWN + 2]] == [{}, {"member": "no such value"}]
    assert {"recent": ["no such value"], "recent.age": [3_600.0]} in [each.features for each in golden.requests]
    assert {len(each.items) for each in golden.requests} == {K}
    assert {len(each.ranked) for each in golden.requests} == {K}
    # What is stored is what a server finds.
    first = golden.requests[0]
    query = loaded.query_tower(loaded.queries(np.array([0]), loaded.manifest.request))
    found = loaded.index.search(query, K)
    assert loaded.items["item"].take(found.ids[0]).to_pylist() == list(first.items)
    np.testing.assert_allclose(found.scores[0], first.scores, rtol=1e-5)


def test_a_changed_weight_of_the_query_tower_is_found(copy: Path, exported: Exported) -> None:
    model, prepared = exported.model, exported.prepared
    weight = next(each for each in model.query_tower.trainable_variables if "kernel" in each.name)
    before, folder = weight.numpy(), Bundle.load(copy).graph_folder("query_tower")
    shutil.rmtree(folder)
    weight.assign(before + 0.01 * (np.arange(before.shape[1]) == 0))
    try:
        encoder = Encoder(prepared.path, prepared.info.features, prepared.names("user", "context"))
        TowerModule(model.query_tower, encoder, model.embeddings.serve()).save(folder)
    finally:
        weight.assign(before)
    with pytest.raises(BundleError, match=r"golden\.json: requests\[0\] \(user .*query tower and index: .*export the"):
        self_test(Bundle.load(with_digests(copy)))


def test_another_rankers_weights_are_found(copy: Path, exported: Exported, tmp_path: Path) -> None:
    other = Bundle.load(export_ranker(ranker_of(exported, "mean"), exported.prepared, tmp_path / "other", PROVENANCE))
    folder = Bundle.load(copy).graph_folder("ranker")
    for path in other.graph_folder("ranker").rglob("*"):
        if path.is_file():
            shutil.copyfile(path, folder / path.relative_to(other.graph_folder("ranker")))
    with pytest.raises(BundleError, match=r"requests\[0\] \(user .*: ranker: "):
        self_test(Bundle.load(with_digests(copy)))


def change_vectors(folder: Path) -> None:
    vectors = np.load(folder / "index" / "vectors.npy")
    vectors[:, 0] += 0.01
    np.save(folder / "index" / "vectors.npy", vectors)


def change_answer(folder: Path) -> None:
    content = json.loads((folder / "golden.json").read_bytes())
    content["requests"][2]["items"][0] = "no such item"
    (folder / "golden.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_vectors, "query tower and index"),
        (change_answer, "names the item 'no such item'"),
        (lambda folder: (folder / "golden.json").write_text("{}"), r"golden\.json: cannot be read"),
    ],
)
def test_what_does_not_belong_together_is_found(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message):
        self_test(Bundle.load(with_digests(copy)))


def test_a_ranker_alone_has_golden_requests_too(exported: Exported, ranker: Ranker, tmp_path: Path) -> None:
    folder = export_ranker(ranker, exported.prepared, tmp_path, PROVENANCE)
    self_test(Bundle.load(folder))
    golden = read(folder)
    assert golden.recall is None
    assert {(len(each.items), len(each.scores), len(each.ranked)) for each in golden.requests} == {(K, 0, K)}


def test_the_most_popular_items(bundle: Path, exported: Exported) -> None:
    loaded, count = Bundle.load(bundle), exported.prepared.train_count
    popular = loaded.popular(5)
    assert count[popular].tolist() == sorted(count.tolist(), reverse=True)[:5]
    assert all(a < b for a, b in itertools.pairwise(popular) if count[a] == count[b])
    gone = np.zeros(len(count), np.bool_)
    gone[popular[0]] = True
    assert popular[0] not in loaded.popular(5, loaded.items.append_column("deleted", [gone]))
    assert len(loaded.popular(1_000)) == len(count)
    with pytest.raises(BundleError, match="train_count: is missing"):
        loaded.popular(5, loaded.items.drop_columns(["train_count"]))
