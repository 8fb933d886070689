"""One value per user: stored, read, compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.comparison import compare
from recsys.evaluation.evidence import Evidence

RNG = np.random.default_rng(0)
USERS = np.array([f"u{n:03}" for n in range(300)])


def evidence(shift: float = 0.0, **changes: object) -> Evidence:
    weights = np.where(np.arange(300) < 50, 0.0, 2.0)
    made = Evidence(
        data_digest="d" * 64,
        part="test",
        users=USERS,
        values={
            "ndcg@10": np.clip(BASE + shift, 0, None),
            "gauc": np.where(weights > 0, BASE + shift, np.nan),
        },
        weights={"gauc": weights},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


BASE = RNG.random(300)
NOISE = RNG.normal(0, 0.3, 300)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.parquet"
    evidence().write(path)
    found = Evidence.read(path)
    assert (found.data_digest, found.part) == ("d" * 64, "test")
    np.testing.assert_array_equal(found.users, USERS)
    for name, values in evidence().values.items():
        np.testing.assert_array_equal(found.values[name], values)
    assert list(found.weights) == ["gauc"]
    assert [each.name for each in tmp_path.iterdir()] == ["model.parquet"]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.parquet"
    with pytest.raises(DataError, match="FileNotFoundError"):
        Evidence.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="evaluate the run again"):
        Evidence.read(path)


def test_users_of_no_weight_are_not_counted() -> None:
    interval = evidence().interval("gauc")
    assert interval is not None
    assert (interval.users, interval.estimate) == (250, pytest.approx(BASE[50:].mean()))
    chosen = np.zeros(300, bool)
    chosen[:51] = True
    assert evidence().interval("gauc", chosen) is None


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_noise() -> None:
    noise = evidence(values={"ndcg@10": BASE + NOISE - NOISE.mean(), "gauc": BASE + NOISE - NOISE.mean()})
    found = compare({"champion": evidence(), "better": evidence(0.05), "other": noise}, ["ndcg@10", "gauc"])
    by_name = {(each.run, each.metric): each for each in found}
    better, other = by_name["better", "ndcg@10"], by_name["other", "ndcg@10"]
    assert better.real
    assert better.difference == pytest.approx(0.05)
    assert (better.low, better.high) == pytest.approx((0.05, 0.05))
    assert not other.real
    assert other.low < other.difference < other.high
    assert other.detectable == pytest.approx((1.96 + 0.8416) * NOISE.std(ddof=1) / np.sqrt(300), rel=0.01)
    assert by_name["better", "gauc"].users == 250


def test_pairing_finds_what_two_intervals_would_hide() -> None:
    """Users differ by far more than the models do: only the paired difference shows it."""
    worse = evidence(values={"ndcg@10": BASE - 0.01 * RNG.random(300), "gauc": BASE})
    (found,) = compare({"a": evidence(), "b": worse}, ["ndcg@10"])
    assert found.real
    assert found.high < 0
    first, second = evidence().interval("ndcg@10"), worse.interval("ndcg@10")
    assert first is not None
    assert second is not None
    assert first.low < second.high


def test_many_comparisons_are_corrected() -> None:
    """p of .01 among ten runs is .1 after Holm: ten tries are not one."""
    values = BASE + NOISE - NOISE.mean() + 2.5 * NOISE.std() / np.sqrt(300)
    runs = {"champion": evidence()} | {f"run{n}": evidence(values={"ndcg@10": values, "gauc": BASE}) for n in range(10)}
    alone = compare({"champion": runs["champion"], "run0": runs["run0"]}, ["ndcg@10"])[0]
    among = compare(runs, ["ndcg@10"])
    assert alone.real
    assert not any(each.real for each in among)
    assert among[0].p == pytest.approx(10 * alone.p)


@pytest.mark.parametrize(
    ("runs", "metrics", "text"),
    [
        ({"a": evidence()}, ["ndcg@10"], "at least two"),
        ({"a": evidence(), "b": evidence(data_digest="e" * 64)}, ["ndcg@10"], "different data"),
        ({"a": evidence(), "b": evidence(part="valid")}, ["ndcg@10"], "test and the valid part"),
        ({"a": evidence(), "b": evidence(users=USERS[::-1])}, ["ndcg@10"], "other users"),
        ({"a": evidence(), "b": evidence()}, ["recall@10"], "no metric 'recall@10'"),
    ],
)
def test_what_cannot_be_compared(runs: dict[str, Evidence], metrics: list[str], text: str) -> None:
    with pytest.raises(DataError, match=text):
        compare(runs, metrics)


def test_values_must_be_of_the_users() -> None:
    with pytest.raises(ValueError, match="300 users"):
        evidence(values={"ndcg@10": BASE[:-1]})
