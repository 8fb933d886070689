"""What categories say of recommendations, against the metrics on vectors that are really made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.prepared import Prepared
from recsys.evaluation.categories import Categories, category_ids
from recsys.metrics import category_miscalibration, intra_list_diversity
from recsys.ragged import Ragged
from tests.worlds import write_world

IDS = np.array([[2, 3], [3, 3], [0, 0], [5, 0], [2, 5]])


def test_shares_by_hand() -> None:
    """Item 0 is half 2, half 3; item 1 is 3, though named twice; item 2 is nothing."""
    categories = Categories(IDS)
    assert len(categories) == 3
    shares = categories.shares(Ragged.from_lists([[0, 1], [2], [], [0, 3, 3]]))
    np.testing.assert_allclose(shares, [[1 / 4, 3 / 4, 0], [0, 0, 0], [0, 0, 0], [1 / 6, 1 / 6, 2 / 3]])


def test_what_training_never_saw_is_no_category(tmp_path: Path) -> None:
    """Two items of unknown genres are not alike."""
    folder = write_world(tmp_path / "world", items=6)
    items = pq.read_table(folder / "items.parquet")
    genres = pa.array([[1], [1], [2], [3, 1], [], [2]], pa.list_(pa.int32()))
    pq.write_table(items.set_column(items.column_names.index("genres"), "genres", genres), folder / "items.parquet")
    assert category_ids(Prepared(folder), "genres").tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [2, 0, 0],
        [3, 0, 0],
        [0, 0, 0],
        [2, 0, 0],
    ]


def test_diversity_is_that_of_the_vectors() -> None:
    rng = np.random.default_rng(0)
    ids = np.where(rng.random((40, 3)) < 0.2, 0, rng.integers(1, 8, (40, 3)))
    ids[ids.sum(1) == 0] = [1, 2, 3]  # an item without category would be a vector of length zero: see below
    vectors = np.zeros((40, 8))
    for column in ids.T:
        vectors[np.arange(40), column] = column > 0
    ranked = np.stack([rng.permutation(40)[:6] for _ in range(50)])
    expected = intra_list_diversity(ranked, vectors)
    found = Categories(ids).diversity(Ragged(ranked.ravel(), np.arange(0, 301, 6)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_items_without_category_are_not_counted() -> None:
    categories = Categories(IDS)
    rows = Ragged.from_lists([[1, 3, 2], [1, 2], [1]])
    assert categories.diversity(rows)[0] == pytest.approx(1.0)
    assert np.isnan(categories.diversity(rows)[1:]).all()


def test_miscalibration_is_steck_s() -> None:
    categories = Categories(IDS)
    history = categories.shares(Ragged.from_lists([[0, 1], []]))
    shown = Ragged.from_lists([[3, 4], [0]])
    expected = category_miscalibration(categories.shares(shown), history)
    found = categories.miscalibration(shown, history)
    assert found[0] == pytest.approx(expected[0])
    assert np.isnan(found[1])


def test_a_catalogue_without_categories() -> None:
    none = Categories(np.zeros(3, int))
    rows = Ragged.from_lists([[0, 1], []])
    assert none.shares(rows).shape == (2, 0)
    assert np.isnan(none.diversity(rows)).all()
    assert np.isnan(none.miscalibration(rows, none.shares(rows))).all()


def test_rankings_are_looked_at_once_for_all_cut_offs() -> None:
    rng = np.random.default_rng(1)
    categories = Categories(np.where(rng.random((50, 3)) < 0.3, 0, rng.integers(1, 6, (50, 3))))
    ranked = np.stack([rng.permutation(50)[:9] for _ in range(20)])
    ranked[3, 4:], ranked[7] = -1, -1
    history = categories.shares(Ragged.from_lists([rng.integers(0, 50, n % 4) for n in range(20)]))
    found = categories.of_rankings(ranked, (2, 5, 9), history)
    for k in (2, 5, 9):
        rows = Ragged.from_lists([row[row >= 0] for row in ranked[:, :k]])
        np.testing.assert_allclose(found[f"diversity@{k}"], categories.diversity(rows), atol=1e-12)
        np.testing.assert_allclose(found[f"miscalibration@{k}"], categories.miscalibration(rows, history), atol=1e-12)
