"""When numbers are doubtful."""

from __future__ import annotations

from math import pi, sqrt

import pytest

from recsys.evaluation.record import CalibrationRecord
from recsys.report.choice import is_better
from recsys.report.doubts import calibration_limit, has_collapsed
from tests.report.conftest import difference, health

BINS = CalibrationRecord(predicted=(0.2, 0.4), observed=(0.1, 0.3), weight=(1.0, 1.0))
"""The rarer label has a share of 0.2."""


def test_a_tenth_of_the_rarer_label_passes_where_examples_abound() -> None:
    assert calibration_limit(BINS, 10**9) == pytest.approx(0.02)
    often = CalibrationRecord(predicted=(0.9,), observed=(0.9,), weight=(1.0,))
    assert calibration_limit(often, 10**9) == pytest.approx(0.01)


def test_few_examples_are_given_what_chance_may_do() -> None:
    """50 in each bin, each off by E |N(0, 0.16 / 50)| in the mean."""
    assert calibration_limit(BINS, 100) == pytest.approx(2 * sqrt(0.16 / 50) * sqrt(2 / pi))


@pytest.mark.parametrize(
    ("rows", "dim", "rank", "collapsed"),
    [(200, 16, 3.1, True), (200, 16, 3.3, False), (5, 16, 1.1, False), (200, 2, 0.1, False), (4, 64, 0.7, True)],
)
def test_a_table_collapses_below_a_fifth_of_what_it_could_be(rows: int, dim: int, rank: float, collapsed: bool) -> None:
    (table,) = health(rows=rows, dim=dim, effective_rank=rank).tables
    assert has_collapsed(table) == collapsed


def test_less_loss_is_better_and_less_auc_is_not() -> None:
    assert is_better(difference("x", metric="logloss", difference=-0.1))
    assert is_better(difference("x", metric="like.logloss", difference=-0.1))
    assert not is_better(difference("x", metric="auc", difference=-0.1))
    assert not is_better(difference("x", metric="auc", difference=0.0))
