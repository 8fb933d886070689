"""Hashing of ids: pinned, uniform, independent between salts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.hashing import hash_rows, salt

MASK = (1 << 64) - 1
IDS = [0, 1, 2, 3, 1000, 2**31, 2**62 + 1, 2**63 - 1, -1]
SCRIPT = """
import json, sys
from recsys._compat import tf
from recsys.embeddings.hashing import hash_rows, salt
ids = tf.constant(json.loads(sys.argv[1]), tf.int64)
key = salt("movie_id", 0)
print(json.dumps([key, hash_rows(ids, tf.fill(ids.shape, tf.constant(key, tf.int64)), 1000).numpy().tolist()]))
"""


def rows_of(ids: NDArray[np.int64] | list[int], key: int, rows: int) -> NDArray[np.int64]:
    tensor = tf.constant(ids, tf.int64)
    return hash_rows(tensor, tf.fill(tf.shape(tensor), tf.constant(key, tf.int64)), rows).numpy()


def splitmix(value: int) -> int:
    """Steele, Lea & Flood (2014): the generator's output for the state `value`, in Python's integers."""
    x = (value + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def assert_uniform(values: NDArray[np.int64], size: int) -> None:
    """Chi-square within five standard deviations of what chance gives, on both sides: too even is no hash either."""
    freedom = size - 1
    assert abs(chi_square(np.bincount(values, minlength=size)) - freedom) < 5 * np.sqrt(2 * freedom)


def test_salts_are_pinned() -> None:
    """These values stand in stored models: where one changes, every hashed table trained before is worthless."""
    assert salt("movie_id", 0) == -5542360600821868217
    assert salt("movie_id", 1) == 7111167241419166081
    assert salt("日本", 0) == -5156586427250453801


def test_rows_are_pinned() -> None:
    """As above: stored models rely on them."""
    assert rows_of(IDS, salt("movie_id", 0), 1000).tolist() == [264, 351, 621, 481, 111, 168, 231, 272, 550]


def test_hash_is_splitmix64_of_id_xor_salt() -> None:
    # The generator's published first output from seed 0.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    for key in (0, 1, salt("a", 0), -1):
        expected = [(splitmix((value & MASK) ^ (key & MASK)) >> 1) % 1_000_003 for value in IDS]
        assert rows_of(IDS, key, 1_000_003).tolist() == expected


def test_another_process_with_another_hash_seed_agrees() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(IDS)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(out) == [salt("movie_id", 0), rows_of(IDS, salt("movie_id", 0), 1000).tolist()]


@pytest.mark.parametrize("rows", [128, 1000])
@pytest.mark.parametrize("stride", [1, 2, 1000, 2**40])
def test_ids_in_any_regular_order_fill_rows_uniformly(rows: int, stride: int) -> None:
    ids = np.arange(rows * 50, dtype=np.int64) * stride
    assert_uniform(rows_of(ids, salt("f", 0), rows), rows)


def test_consecutive_ids_leave_no_sequential_trace() -> None:
    rows = rows_of(np.arange(128 * 100), salt("f", 0), 128)
    assert_uniform(np.diff(rows) % 128, 128)
    assert_uniform(np.diff(np.diff(rows)) % 128, 128)


def test_two_salts_bring_an_id_to_one_row_no_more_often_than_chance() -> None:
    size, ids = 100, np.arange(200_000)
    one, other = rows_of(ids, salt("user_id", 0), size), rows_of(ids, salt("movie_id", 0), size)
    spread = np.sqrt(len(ids) / size * (1 - 1 / size))
    assert abs((one == other).sum() - len(ids) / size) < 5 * spread
    # Nor is one a shifted copy of the other.
    assert_uniform((one - other) % size, size)


def test_name_and_number_are_kept_apart_in_a_salt() -> None:
    salts = [salt("a", 1), salt("a1"), salt("a", 11), salt("a1", 1), salt("a", 0), salt("b", 0), salt("a")]
    assert len(set(salts)) == len(salts)


def test_rows_stay_in_range_for_the_whole_of_int64() -> None:
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 10_000)
    rows = rows_of(ids, salt("f", 0), 7)
    assert set(rows.tolist()) == set(range(7))
