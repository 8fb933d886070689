"""Several windows' evidence as one."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.evidence import Evidence, Measured
from recsys.evaluation.pooled import pool

NAN = float("nan")
TAIL = ("item_frequency", "tail")


def evidence(users: str, weights: dict[str, list[float]] | None = None, **values: list[float]) -> Evidence:
    return Evidence(
        np.array(list(users)),
        {name: np.array(each) for name, each in values.items()},
        {name: np.array(each) for name, each in (weights or {}).items()},
    )


def test_by_hand() -> None:
    """Users a and c stand in two windows, b and d in one."""
    first = evidence("abc", ndcg=[0.2, 0.4, 0.6], auc=[0.5, 0.7, NAN], weights={"auc": [1.0, 3.0, 0.0]}, only=[1, 1, 1])
    second = evidence("acd", ndcg=[0.4, 0.0, 1.0], auc=[0.9, NAN, NAN], weights={"auc": [3.0, 0.0, 0.0]})
    found = pool([Measured("x", "test", first), Measured("y", "test", second)]).whole
    assert found.users.tolist() == list("abcd")
    assert list(found.values) == ["ndcg", "auc"], "a metric that one window lacks is left out"
    np.testing.assert_allclose(found.values["ndcg"], [0.3, 0.4, 0.3, 1.0])
    assert found.weight("ndcg").tolist() == [2, 1, 2, 1]
    np.testing.assert_allclose(found.values["auc"], [(0.5 + 3 * 0.9) / 4, 0.7, NAN, NAN])
    assert found.weight("auc").tolist() == [4, 3, 0, 0]
    ranges = found.intervals()
    assert ranges["ndcg"].estimate == pytest.approx((0.2 + 0.4 + 0.6 + 0.4 + 0.0 + 1.0) / 6)
    assert ranges["auc"].users == 2


def test_slices_are_pooled_where_all_windows_have_them() -> None:
    """Groups that go by the data are others in every window; what one window calls 1-17 is no group of them all."""
    whole, tail = evidence("ab", ndcg=[0.1, 0.2]), evidence("b", ndcg=[0.5])
    first = Measured("x", "test", whole, {TAIL: tail, ("user_activity", "1-17"): tail}, {"item_frequency": "{}"})
    second = Measured("y", "test", whole, {TAIL: evidence("ab", ndcg=[0.1, 0.3])}, {"item_frequency": "{}"})
    found = pool([first, second])
    assert list(found.slices) == [TAIL]
    np.testing.assert_allclose(found.slices[TAIL].values["ndcg"], [0.1, 0.4])
    assert found.slices[TAIL].weight("ndcg").tolist() == [1, 2]
    assert found.slicings == {"item_frequency": "{}"}


def test_the_digest_tells_the_windows_data_and_their_order() -> None:
    whole = evidence("ab", ndcg=[0.1, 0.2])
    digests = [
        pool([Measured(each, "test", whole) for each in windows]).data_digest
        for windows in (("x", "y"), ("y", "x"), ("x",), ("x", "y"))
    ]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]
