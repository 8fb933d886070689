"""Mutual information of item features, by hand, and the groups of features that it makes."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo, VectorInfo
from recsys.objectives.mutual_information import BINS, groups, membership, mutual_information

ONE = CategoricalInfo(role="item", rows=1000, oov_rows=1)
SEVERAL = CategoricalInfo(role="item", rows=1000, oov_rows=1, max_length=3)
NUMBER = NumericInfo(role="item", transform="standardize", mean=0.0, std=1.0)


def test_by_hand() -> None:
    """Joint counts [[2, 1], [0, 1]] of four items."""
    one, other = np.array([2, 2, 2, 3]), np.array([7, 7, 8, 8])
    p, a, b = np.array([0.5, 0.25, 0.25]), np.array([0.75, 0.75, 0.25]), np.array([0.5, 0.5, 0.5])
    mutual, entropy = (p * np.log(p / (a * b))).sum(), -(p * np.log(p)).sum()
    found = [membership(column, ONE) for column in (one, other)]
    np.testing.assert_allclose(mutual_information(found), [[0, mutual], [mutual, 0]])
    np.testing.assert_allclose(mutual_information(found, normalized=True)[0, 1], mutual / entropy)


def test_a_set_of_values_shares_an_item_out() -> None:
    """Item 0 has values 5 and 6, item 1 has 6, item 2 has none: the shares are 1/6, 1/2 and 1/3."""
    table = membership(np.array([[5, 6, 0], [6, 0, 0], [0, 0, 0]]), SEVERAL)
    np.testing.assert_allclose(table.toarray(), [[0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]])
    joint = table.T.toarray() @ membership(np.array([2, 3, 4]), ONE).toarray() / 3
    shares, others = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    np.testing.assert_allclose(shares[:, 0], [1 / 3, 1 / 6, 1 / 2])
    there = joint > 0
    expected = (joint[there] * np.log(joint / (shares * others), where=there, out=np.zeros_like(joint))[there]).sum()
    found = mutual_information([table, membership(np.array([2, 3, 4]), ONE)])
    np.testing.assert_allclose(found[0, 1], expected)


def test_an_id_tells_all_of_everything_unless_it_is_normalised() -> None:
    """MI with it is the other's whole entropy; a coarse copy of a feature is nearer, once that is divided by."""
    rng = np.random.default_rng(0)
    fine = rng.integers(2, 22, 400)
    columns = [membership(column, ONE) for column in (np.arange(400) + 2, fine, fine // 2, rng.integers(2, 4, 400))]
    entropy = np.log(20)
    raw, normalized = mutual_information(columns), mutual_information(columns, normalized=True)
    assert raw[0, 1] == pytest.approx(entropy, rel=0.02)
    assert np.argmax(raw[3]) == 0
    assert raw[1, 0] > raw[1, 2]
    assert normalized[1, 2] > normalized[1, 0]
    assert np.all((normalized >= 0) & (normalized <= 1 + 1e-9))
    same = [membership(column, ONE) for column in (fine, 100 - fine)]
    assert mutual_information(same, normalized=True)[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "info", "distinct"),
    [
        (np.concatenate([np.arange(990.0), [np.nan] * 10]).astype(np.float32), NUMBER, BINS + 1),
        (np.concatenate([np.zeros(990), np.ones(10)]).astype(np.float32), NUMBER, 1),
        (np.arange(1000)[:, None] * np.array([[3.0, -1.0, 0.0]], np.float32), VectorInfo(role="item", dim=3), BINS),
        (np.arange(1000, dtype=np.int64) % 7 * 10**15, FingerprintInfo(role="item"), 7),
    ],
)
def test_numbers_and_vectors_are_cut_by_quantile(values: np.ndarray, info: FeatureInfo, distinct: int) -> None:
    table = membership(values, info)
    assert table.shape == (1000, distinct)
    np.testing.assert_allclose(table.sum(1), 1.0)
    if isinstance(info, VectorInfo):  # along its only direction: as the numbers 0, 1, ... are cut
        plain = membership(np.arange(1000, dtype=np.float32), NUMBER)
        assert mutual_information([table, plain], normalized=True)[0, 1] == pytest.approx(1.0)


def test_groups_hold_the_seed_and_what_tells_most_of_it() -> None:
    """k = 5: two others each; equal ones by their order."""
    mutual = np.array([[0, 9, 1, 2, 3], [9, 0, 5, 5, 5], [1, 5, 0, 8, 0], [2, 5, 8, 0, 0], [3, 5, 0, 0, 0.0]])
    found = groups(mutual)
    assert [set(np.flatnonzero(row)) for row in found] == [{0, 1, 4}, {1, 0, 2}, {2, 3, 1}, {3, 2, 1}, {4, 1, 0}]
    assert groups(np.zeros((6, 6))).sum(1).tolist() == [4] * 6
