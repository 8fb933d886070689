import numpy as np
import pytest

from recsys.metrics import coverage, mean_popularity
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
