import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ragged import Ragged

rows = st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=5)


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[r].tolist() for r in range(len(ragged))]


@given(rows)
def test_lists_survive(given_rows: list[list[int]]) -> None:
    ragged = Ragged.from_lists(given_rows)
    assert lists(ragged) == given_rows
    assert ragged.lengths.tolist() == [len(row) for row in given_rows]
    assert ragged.row_of_value.tolist() == [r for r, row in enumerate(given_rows) for _ in row]


@given(rows, st.data())
def test_slice_and_take_are_those_of_lists(given_rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.from_lists(given_rows)
    start = data.draw(st.integers(0, len(given_rows)))
    stop = data.draw(st.integers(start, len(given_rows)))
    assert lists(ragged.slice(start, stop)) == given_rows[start:stop]
    chosen = data.draw(st.lists(st.integers(0, len(given_rows) - 1), max_size=6))
    assert lists(ragged.take(np.array(chosen, np.int64))) == [given_rows[r] for r in chosen]


def test_from_pairs_keeps_the_order_within_a_row() -> None:
    ragged = Ragged.from_pairs(np.array([2, 0, 2, 0]), np.array([9, 5, 1, 7]), 4)
    assert lists(ragged) == [[5, 7], [], [9, 1], []]


@pytest.mark.parametrize("row", [-1, 3])
def test_from_pairs_refuses_rows_outside(row: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        Ragged.from_pairs(np.array([0, row]), np.array([1, 1]), 3)


@pytest.mark.parametrize("offsets", [[1, 3], [0, 2], [0, 3, 1, 3], []])
def test_unsound_offsets_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        Ragged(np.array([1, 2, 3]), np.array(offsets, np.int64))


@given(rows, st.data())
def test_contains_and_difference_are_those_of_sets(given_rows: list[list[int]], data: st.DataObject) -> None:
    ragged, count = Ragged.from_lists(given_rows), len(given_rows)
    # The table reaches past the largest value held: a key must not run over into the next row.
    entries = st.lists(st.integers(-1, 9), min_size=4, max_size=4)
    table = data.draw(st.lists(entries, min_size=count, max_size=count))
    expected = [[value in set(row) for value in entry] for row, entry in zip(given_rows, table, strict=True)]
    assert ragged.contains(np.array(table)).tolist() == expected

    other = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=count, max_size=count))
    expected_left = [sorted(set(a) - set(b)) for a, b in zip(given_rows, other, strict=True)]
    assert lists(ragged.difference(Ragged.from_lists(other))) == expected_left


def test_negative_values_are_refused_where_rows_are_compared() -> None:
    ragged = Ragged.from_lists([[1], [-1]])
    with pytest.raises(ValueError, match="negative"):
        ragged.contains(np.zeros((2, 1), np.int64))


def test_rows_must_match() -> None:
    ragged = Ragged.from_lists([[1], [2]])
    with pytest.raises(ValueError, match="2 rows"):
        ragged.contains(np.zeros((3, 1), np.int64))
    with pytest.raises(ValueError, match="2 rows"):
        ragged.difference(ragged.slice(0, 1))
