"""Exact search against plain numpy, in many blockings."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from recsys.errors import BundleError, DataError
from recsys.ragged import Ragged
from recsys.retrieval import ExactIndex
from recsys.retrieval.exact import _pack, _unpack


def brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, exclude: list[list[int]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The definition, one query at a time."""
    ids = np.full((len(queries), k), -1)
    scores = np.full((len(queries), k), -np.inf)
    for row, query in enumerate(queries):
        legal = [i for i in range(len(vectors)) if i not in exclude[row]]
        best = sorted(legal, key=lambda i: (-float(vectors[i] @ query), i))[:k]
        ids[row, : len(best)] = best
        scores[row, : len(best)] = [float(vectors[i] @ query) for i in best]
    return ids, scores


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 45), st.integers(1, 12), st.integers(1, 40), st.integers(1, 12))
def test_any_tiling_finds_what_the_definition_says(
    seed: int, items: int, k: int, items_at_once: int, queries_at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small integers: products are exact, and ties are the rule.
    vectors = rng.integers(-2, 3, (items, 2)).astype(np.float32)
    queries = rng.integers(-2, 3, (rng.integers(0, 12), 2)).astype(np.float32)
    # From nobody's items to all of them, some twice.
    exclude = [rng.integers(0, items, rng.integers(0, 3 * items)).tolist() for _ in queries]
    index = ExactIndex(vectors, items_at_once=items_at_once, queries_at_once=queries_at_once)
    found = index.search(queries, k, Ragged.from_lists(exclude))
    ids, scores = brute_force(vectors, queries, k, exclude)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)
    assert found.ids.dtype == np.int32
    assert found.scores.dtype == np.float32


ORDERS = {
    "any": lambda scores: scores,
    "rising": lambda scores: np.sort(scores, axis=1),  # each item beats all before it
    "falling": lambda scores: -np.sort(-scores, axis=1),
    "a few values": lambda scores: np.round(scores),
    "all equal": lambda scores: np.zeros_like(scores) - 3,
    "neighbouring floats": lambda scores: 1 + np.round(scores * 3) * 2.0**-23,
    "one block of good ones": lambda scores: scores + 9 * (np.arange(scores.shape[1]) // 500 == 4),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("k", [1, 20, 300, 2_990])
def test_whatever_the_order_of_the_scores(order: str, k: int) -> None:
    """Many tiles and several threads; the scores are what stands in the items' vectors."""
    rng = np.random.default_rng(k)
    scores = ORDERS[order](rng.normal(size=(8, 3_000))).astype(np.float32)
    exclude = Ragged.from_lists([rng.choice(3_000, n, replace=False) for n in (0, 1, 10, 20, 100, 1_000, 2_980, 3_000)])
    found = ExactIndex(scores.T, items_at_once=700, queries_at_once=3).search(np.eye(8), k, exclude)
    legal = np.where(exclude.contains(np.tile(np.arange(3_000), (8, 1))), -np.inf, scores)
    best = np.argsort(-legal, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(legal, best, 1)
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_array_equal(found.ids, np.where(np.isneginf(expected), -1, best))


def test_keys_order_scores_and_ids() -> None:
    scores = np.array([np.inf, 3e38, 2, 2, 1e-45, 0, -0.0, 0, -1e-45, -2, -3e38, -np.inf], np.float32)
    keys = _pack(scores, np.arange(len(scores)))
    assert np.all(np.diff(keys) > 0)  # -0 counts as 0, so its place is by id
    np.testing.assert_array_equal(_unpack(keys).scores, scores)
    assert _unpack(keys).ids.tolist() == list(range(len(scores)))


def test_two_searches_at_once_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    index = ExactIndex(rng.normal(size=(500, 8)), queries_at_once=4, items_at_once=100)
    queries = rng.normal(size=(64, 8)).astype(np.float32)
    threads = [each["num_threads"] for each in threadpool_info()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: index.search(queries, 10).ids, range(8)))
    for ids in found[1:]:
        np.testing.assert_array_equal(ids, found[0])
    assert [each["num_threads"] for each in threadpool_info()] == threads


def test_a_very_low_score_is_not_taken_for_an_excluded_one() -> None:
    index = ExactIndex(np.array([[-1e30], [-3e38], [5.0], [-1e6]]))
    found = index.search(np.array([[1.0]]), 4, Ragged.from_lists([[2]]))
    assert found.ids.tolist() == [[3, 0, 1, -1]]
    np.testing.assert_array_equal(found.scores, np.array([[-1e6, -1e30, -3e38, -np.inf]], np.float32))


def test_without_exclude_and_with_k_past_the_catalogue() -> None:
    found = ExactIndex(np.array([[1.0], [2.0]])).search(np.array([[1.0], [-1.0]]), 3)
    assert found.ids.tolist() == [[1, 0, -1], [0, 1, -1]]
    assert found.scores.tolist() == [[2, 1, -np.inf], [-1, -2, -np.inf]]


def test_no_queries() -> None:
    found = ExactIndex(np.eye(3)).search(np.empty((0, 3)), 2, Ragged.from_lists([]))
    assert found.ids.shape == found.scores.shape == (0, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    vectors = np.ones((4, 2))
    vectors[[1, 3], 1] = bad
    with pytest.raises(DataError, match=r"vectors: 2 of 4 rows hold NaN or infinity, first row 1"):
        ExactIndex(vectors)
    with pytest.raises(DataError, match=r"queries: 2 of 4 rows hold NaN or infinity, first row 1"):
        ExactIndex(np.ones((3, 2))).search(vectors, 1)


def test_overflow_is_refused() -> None:
    with pytest.raises(DataError, match="overflow float32"):
        ExactIndex(np.array([[1e20], [-1e20]])).search(np.array([[1e20]]), 2)


@pytest.mark.parametrize(
    ("queries", "k", "exclude", "message"),
    [
        (np.ones((2, 3)), 1, None, "queries have width 3, the index has 2"),
        (np.ones(2), 1, None, "must be \\[rows, d\\]"),
        (np.ones((2, 2)), 0, None, "k must be at least 1"),
        (np.ones((2, 2)), 1, [[0]], "exclude has 1 rows for 2 queries"),
        (np.ones((2, 2)), 1, [[0], [4]], r"the index 0\.\.3"),
        (np.ones((2, 2)), 1, [[-1], []], r"the index 0\.\.3"),
    ],
)
def test_misuse_is_refused(queries: NDArray, k: int, exclude: list | None, message: str) -> None:
    index = ExactIndex(np.ones((4, 2)))
    with pytest.raises(ValueError, match=message):
        index.search(queries, k, None if exclude is None else Ragged.from_lists(exclude))


def test_an_index_needs_vectors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ExactIndex(np.empty((0, 4)))


def test_save_and_load(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    index = ExactIndex(rng.normal(size=(30, 4)))
    index.save(tmp_path / "index")
    index.save(tmp_path / "index2")
    assert [f.name for f in (tmp_path / "index").iterdir()] == ["vectors.npy"]
    loaded = ExactIndex.load(tmp_path / "index")
    queries = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(loaded.search(queries, 5).ids, index.search(queries, 5).ids)
    assert (loaded.size, loaded.dim) == (30, 4)

    with pytest.raises(BundleError, match="something here already"):
        index.save(tmp_path / "index")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["index", "index2"]


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY garbage"])
def test_unreadable_vectors_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "vectors.npy").write_bytes(content)
    with pytest.raises(BundleError, match=r"vectors\.npy: cannot be read .*export it again"):
        ExactIndex.load(tmp_path)


def test_vectors_of_another_type_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((2, 2)))
    with pytest.raises(BundleError, match="float64"):
        ExactIndex.load(tmp_path)
    np.save(tmp_path / "vectors.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BundleError, match="cannot be read"):
        ExactIndex.load(tmp_path)
