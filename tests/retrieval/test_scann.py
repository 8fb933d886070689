"""ScaNN against exact search; saving, loading, and snapshots in a SavedModel."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import BundleError, DataError
from recsys.ragged import Ragged
from recsys.retrieval import ExactIndex, InGraphIndex, ScannConfig, ScannIndex, build_index, recall_of
from recsys.retrieval.config import ExactConfig

N, D = 3_000, 8
TREE = ScannConfig(leaves=50, leaves_to_search=40, reorder=200)
NARROW = ScannConfig(leaves=50, leaves_to_search=1, reorder=200)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(40, D)).astype(np.float32)


@pytest.fixture(scope="module")
def tree(vectors: NDArray[np.float32]) -> ScannIndex:
    return ScannIndex.build(vectors, TREE)


@pytest.fixture(scope="module")
def narrow(vectors: NDArray[np.float32]) -> ScannIndex:
    return ScannIndex.build(vectors, NARROW)


@pytest.fixture(scope="module")
def exact(vectors: NDArray[np.float32]) -> ExactIndex:
    return ExactIndex(vectors)


def test_a_small_catalogue_is_scored_whole(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: ExactIndex
) -> None:
    index = build_index(vectors, ScannConfig(), queries)
    assert isinstance(index, ScannIndex)
    assert index.config.leaves == 0
    found, truth = index.search(queries, 20), exact.search(queries, 20)
    np.testing.assert_array_equal(found.ids, truth.ids)
    np.testing.assert_allclose(found.scores, truth.scores, rtol=1e-5)
    assert isinstance(build_index(vectors, ExactConfig(), queries), ExactIndex)


def test_more_leaves_find_more(
    tree: ScannIndex, narrow: ScannIndex, exact: ExactIndex, queries: NDArray[np.float32]
) -> None:
    wide, few = recall_of(tree, exact, queries, 20), recall_of(narrow, exact, queries, 20)
    assert few < 0.7 < 0.95 < wide
    assert recall_of(exact, exact, queries, 20) == 1.0
    assert recall_of(exact, exact, queries, N + 5) == 1.0


def test_recall_of_is_the_share_of_the_truth(
    narrow: ScannIndex, exact: ExactIndex, queries: NDArray[np.float32]
) -> None:
    found, truth = narrow.search(queries, 20).ids, exact.search(queries, 20).ids
    by_hand = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    assert recall_of(narrow, exact, queries, 20) == pytest.approx(by_hand)


def test_scores_are_inner_products_best_first(
    tree: ScannIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    found = tree.search(queries, 20)
    assert found.ids.dtype == np.int32
    assert found.scores.dtype == np.float32
    np.testing.assert_allclose(found.scores, np.einsum("qd,qkd->qk", queries, vectors[found.ids]), rtol=1e-4)
    assert np.all(np.diff(found.scores, axis=1) <= 0)


def test_one_query_and_many_are_answered_alike(tree: ScannIndex, queries: NDArray[np.float32]) -> None:
    one = np.concatenate([tree.search(query[None], 10).ids for query in queries])
    np.testing.assert_array_equal(one, tree.search(queries, 10).ids)
    many = np.tile(queries, (110, 1))  # more than are handed to ScaNN at once
    np.testing.assert_array_equal(tree.search(many, 10).ids, np.tile(one, (110, 1)))


def test_excluded_items_make_room_for_the_next(tree: ScannIndex, queries: NDArray[np.float32]) -> None:
    plain = tree.search(queries, 30)
    exclude = [row[::2] if q % 2 else [] for q, row in enumerate(plain.ids.tolist())]
    found = tree.search(queries, 15, Ragged.from_lists(exclude))
    expected = [row[1::2] if q % 2 else row[:15] for q, row in enumerate(plain.ids.tolist())]
    assert found.ids.tolist() == expected


def test_results_never_come_back_short(narrow: ScannIndex, exact: ExactIndex, queries: NDArray[np.float32]) -> None:
    # One leaf of some 60 items cannot give 500: such queries are searched exactly.
    np.testing.assert_array_equal(narrow.search(queries, 500).ids, exact.search(queries, 500).ids)
    # Nor can it give 10 to who has had the best 2,500 of all; who has had nothing keeps the approximate answer.
    had = exact.search(queries, 2_500).ids.tolist()
    exclude = Ragged.from_lists([row if q % 2 else [] for q, row in enumerate(had)])
    found, truth = narrow.search(queries, 10, exclude), exact.search(queries, 10, exclude)
    assert np.all(found.ids >= 0)
    assert not exclude.contains(found.ids).any()
    assert np.mean(np.all(found.ids == truth.ids, axis=1)[1::2]) > 0.7
    np.testing.assert_array_equal(found.ids[::2], narrow.search(queries[::2], 10).ids)


def test_who_excludes_more_than_is_fetched_is_answered_exactly(tree: ScannIndex, exact: ExactIndex) -> None:
    query = np.ones((1, D), np.float32)
    exclude = Ragged.from_lists([exact.search(query, 2_500).ids[0]])
    found, truth = tree.search(query, 10, exclude), exact.search(query, 10, exclude)
    np.testing.assert_array_equal(found.ids, truth.ids)
    everything = Ragged.from_lists([np.arange(N)])
    assert tree.search(query, 3, everything).ids.tolist() == [[-1, -1, -1]]
    assert np.all(np.isneginf(tree.search(query, 3, everything).scores))


def test_k_past_the_catalogue_is_padded() -> None:
    index = ScannIndex.build(np.array([[1.0], [3.0]]))
    found = index.search(np.array([[2.0]]), 4)
    assert found.ids.tolist() == [[1, 0, -1, -1]]
    assert found.scores.tolist() == [[6, 2, -np.inf, -np.inf]]


def test_what_is_not_finite_is_refused(tree: ScannIndex) -> None:
    with pytest.raises(DataError, match="vectors: 1 of 2"):
        ScannIndex.build(np.array([[1.0], [np.nan]]))
    with pytest.raises(DataError, match="queries: 1 of 1"):
        tree.search(np.full((1, D), np.nan), 3)


def test_saved_moved_and_loaded(tree: ScannIndex, queries: NDArray[np.float32], tmp_path: Path) -> None:
    tree.save(tmp_path / "a" / "index")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a" / "index", tmp_path / "b" / "elsewhere")
    shutil.rmtree(tmp_path / "a")
    folder = tmp_path / "b" / "elsewhere"
    assert sorted(f.name for f in folder.iterdir()) == ["scann", "scann.json", "vectors.npy"]
    assert not list(folder.rglob("*.pkl"))
    loaded = ScannIndex.load(folder)
    assert loaded.config == tree.config
    exclude = Ragged.from_lists(list(tree.search(queries, 5).ids))
    np.testing.assert_array_equal(loaded.search(queries, 20, exclude).ids, tree.search(queries, 20, exclude).ids)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "scann.json").unlink(), r"scann\.json: cannot be read"),
        (lambda f: (f / "scann.json").write_text("{"), r"scann\.json: cannot be read"),
        (lambda f: shutil.rmtree(f / "scann"), "ScaNN cannot load it"),
        (lambda f: (f / "scann" / "scann_assets.pbtxt").unlink(), "ScaNN cannot load it"),
        (lambda f: np.save(f / "vectors.npy", np.ones((N, D + 1), np.float32)), "has shape"),
        (lambda f: (f / "scann" / "scann_docids.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."), "pickle"),
    ],
)
def test_damage_is_named(tree: ScannIndex, tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    tree.save(tmp_path / "index")
    damage(tmp_path / "index")
    with pytest.raises(BundleError, match=message):
        ScannIndex.load(tmp_path / "index")


def test_a_searcher_of_other_vectors_is_refused(tree: ScannIndex, tmp_path: Path) -> None:
    tree.save(tmp_path / "one")
    ScannIndex.build(np.eye(D)).save(tmp_path / "other")
    shutil.rmtree(tmp_path / "one" / "scann")
    shutil.copytree(tmp_path / "other" / "scann", tmp_path / "one" / "scann")
    with pytest.raises(BundleError, match=f"holds {D} vectors; expected {N}"):
        ScannIndex.load(tmp_path / "one")


def test_a_failed_save_leaves_nothing(tree: ScannIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tree, "save_searcher", fail)
    with pytest.raises(OSError, match="disk full"):
        tree.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_the_snapshot_finds_what_the_live_index_finds(tree: ScannIndex, queries: NDArray[np.float32]) -> None:
    snapshot = InGraphIndex.of(tree)
    ids, scores = snapshot.search(queries, 25)
    live = tree.search(queries, 25)
    np.testing.assert_array_equal(ids.numpy(), live.ids)
    np.testing.assert_allclose(scores.numpy(), live.scores, rtol=1e-6)
    assert ids.dtype == "int32"


def test_the_snapshot_pads_what_is_not_found(narrow: ScannIndex, queries: NDArray[np.float32]) -> None:
    snapshot = InGraphIndex.of(narrow)
    ids, scores = (tensor.numpy() for tensor in snapshot.search(queries, N + 10))
    assert ids.shape == (len(queries), N + 10)
    assert np.all((ids >= 0).any(axis=1))
    assert np.all((ids == -1).any(axis=1))
    np.testing.assert_array_equal(ids == -1, np.isneginf(scores))
    for row in ids:
        assert len(set(row[row >= 0])) == np.sum(row >= 0)


FRESH = """
import json, sys
import numpy as np, tensorflow as tf, scann
model = tf.saved_model.load(sys.argv[1])
ids, scores = model.search(tf.constant(np.load(sys.argv[2])), tf.constant(12))
engine = [name for name in ("recsys", "tensorflow_recommenders") if name in sys.modules]
print(json.dumps({"ids": ids.numpy().tolist(), "engine": engine}))
"""


@pytest.mark.parametrize("config", [TREE, ScannConfig()])
def test_a_saved_model_is_moved_and_loaded_by_tensorflow_and_scann_alone(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path, config: ScannConfig
) -> None:
    import tensorflow as tf

    index = ScannIndex.build(vectors, config)
    tf.saved_model.save(InGraphIndex.of(index), str(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "moved")
    np.save(tmp_path / "queries.npy", queries)
    run = subprocess.run(
        [sys.executable, "-c", FRESH, "moved", "queries.npy"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout)
    assert answer == {"ids": index.search(queries, 12).ids.tolist(), "engine": []}
