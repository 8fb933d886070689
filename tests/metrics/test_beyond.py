import numpy as np
import pytest

from recsys.metrics import (
    category_miscalibration,
    coverage,
    gini,
    intra_list_diversity,
    mean_popularity,
    novelty,
)
from recsys.ragged import Ragged


def test_coverage_counts_each_item_once_and_no_padding() -> None:
    ranked = np.array([[0, 5, -1], [5, 0, 9], [-1, -1, -1]])
    assert coverage(ranked, 10) == 0.3
    assert coverage(np.full((2, 3), -1), 10) == 0.0
    assert coverage(np.arange(10).reshape(2, 5), 10) == 1.0


def test_coverage_refuses_items_outside_the_catalogue() -> None:
    with pytest.raises(ValueError, match="item 4"):
        coverage(np.array([[4]]), 4)


def test_mean_popularity_by_hand() -> None:
    popularity = np.array([10, 0, 3, 1], np.int32)
    found = mean_popularity(Ragged.from_lists([[0, 2, 3], [], [1], [0, 0]]), popularity)
    np.testing.assert_allclose(found, [14 / 3, np.nan, 0, 10])


def test_gini_by_hand_and_by_property() -> None:
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    x = np.random.default_rng(0).integers(0, 9, 40)
    pairs = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())  # its definition: half the relative mean difference
    assert gini(x) == pytest.approx(pairs)
    assert gini(7 * x) == pytest.approx(gini(x))
    with pytest.raises(ValueError, match="all 0"):
        gini(np.zeros(3))


def test_novelty_by_hand() -> None:
    """4 users: an item nobody had tells log2(5) bits, one that 4 had tells none."""
    found = novelty(Ragged.from_lists([[0, 1], [1], []]), np.array([0, 4]), total=4)
    np.testing.assert_allclose(found, [np.log2(5) / 2, 0.0, np.nan])


def test_diversity_by_hand() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    ranked = np.array([[0, 1, 2], [0, 0, -1], [0, 3, -1], [1, -1, -1]])
    cosines = (0 + 2 * np.sqrt(0.5)) / 3
    np.testing.assert_allclose(intra_list_diversity(ranked, vectors), [1 - cosines, 0.0, 1.0, np.nan], atol=1e-12)


def test_miscalibration_by_hand() -> None:
    recommended, history = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    mixed = 0.99 * recommended + 0.01 * history
    expected = 0.5 * np.log(0.5 / mixed[0, 0]) + 0.5 * np.log(0.5 / mixed[0, 1])
    assert category_miscalibration(recommended, history)[0] == pytest.approx(expected)
    assert category_miscalibration(history, recommended)[0] == pytest.approx(np.log(1 / (0.99 * 0.5 + 0.01)))
    with pytest.raises(ValueError, match="alike"):
        category_miscalibration(recommended, history[:, :1])
