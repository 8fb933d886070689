"""One value per user: stored, read, compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataError
from recsys.evaluation.comparison import compare, hold_against
from recsys.evaluation.evidence import Evidence, Measured
from recsys.metrics import rela_impr

RNG = np.random.default_rng(0)
USERS = np.array([f"u{n:03}" for n in range(300)])


def evidence(shift: float = 0.0, **changes: object) -> Evidence:
    weights = np.where(np.arange(300) < 50, 0.0, 2.0)
    made = Evidence(
        users=USERS,
        values={
            "ndcg@10": np.clip(BASE + shift, 0, None),
            "gauc": np.where(weights > 0, BASE + shift, np.nan),
        },
        weights={"gauc": weights},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def measured(whole: Evidence | None = None, **changes: object) -> Measured:
    made = Measured("d" * 64, "test", evidence() if whole is None else whole)
    return replace(made, **changes)  # type: ignore[arg-type]


BASE = RNG.random(300)
NOISE = RNG.normal(0, 0.3, 300)


def test_rela_impr_is_the_ratio_of_two_means_and_its_interval_that_of_resampled_users() -> None:
    """Base and gain go together over users, so that an interval that takes the base for certain would be far off."""
    random = np.random.default_rng(5)
    weights = random.integers(1, 5, 300).astype(float)
    base = 0.58 + 0.2 * random.normal(size=300)
    better = base + 0.3 * (base - 0.5) + 0.02 * random.normal(size=300)

    def auc(values: np.ndarray) -> Evidence:
        return Evidence(USERS, {"auc": values, "ndcg@10": values}, {"auc": weights})

    runs = {"a": measured(auc(base)), "b": measured(auc(better))}
    found, other = compare(runs, ["auc", "ndcg@10"])
    ratio = found.rela_impr
    assert ratio is not None
    assert other.rela_impr is None
    assert ratio.value == pytest.approx(rela_impr(found.value, found.reference))
    drawn = random.integers(0, 300, (4000, 300))
    mine, theirs = (np.sum((weights * x)[drawn], 1) / np.sum(weights[drawn], 1) for x in (better, base))
    low, high = np.quantile((mine - 0.5) / (theirs - 0.5) - 1, (0.025, 0.975))
    assert [ratio.low, ratio.high] == pytest.approx([low, high], abs=0.15 * (high - low))
    sure = (found.high - found.low) / (found.reference - 0.5)
    assert abs(sure - (high - low)) > 0.5 * (high - low), "the base counts"
    (chance,) = compare({"a": measured(auc(np.full(300, 0.5))), "b": runs["b"]}, ["auc"])
    assert chance.rela_impr is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.parquet"
    part = evidence().take(np.arange(10), ["ndcg@10"])
    other = Evidence(USERS[5:9], {"auc": BASE[5:9]})
    slices = {("item_frequency", "tail"): part, ("age", "tail"): part, ("age", "25 to 35"): other}
    measured(slices=slices, slicings={"age": "{}"}).write(path)
    found = Measured.read(path)
    assert found.slicings == {"age": "{}"}
    assert (found.data_digest, found.part) == ("d" * 64, "test")
    assert list(found.slices) == list(slices)
    for written, read in ((evidence(), found.whole), *((slices[key], found.slices[key]) for key in slices)):
        np.testing.assert_array_equal(read.users, written.users)
        assert read.values.keys() == written.values.keys()
        assert read.weights.keys() == written.weights.keys()
        for name in written.values:
            np.testing.assert_array_equal(read.values[name], written.values[name])
            np.testing.assert_array_equal(read.weight(name), written.weight(name))
    assert [each.name for each in tmp_path.iterdir()] == ["model.parquet"]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.parquet"
    with pytest.raises(DataError, match="FileNotFoundError"):
        Measured.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="evaluate the run again"):
        Measured.read(path)
    pq.write_table(pa.table({"user": ["a"]}), path)
    with pytest.raises(DataError, match="evaluate the run again"):
        Measured.read(path)


def test_users_of_no_weight_are_not_counted() -> None:
    interval = evidence().intervals()["gauc"]
    assert (interval.users, interval.estimate) == (250, pytest.approx(BASE[50:].mean()))
    assert "gauc" not in evidence().take(np.arange(51), ["gauc"]).intervals()  # one user


def test_values_that_are_not_defined_weigh_nothing() -> None:
    made = Evidence.of(USERS[:3], {"a": np.array([1.0, np.nan, 3.0]), "b": np.ones(3)})
    assert made.weight("a").tolist() == [1, 0, 1]
    assert list(made.weights) == ["a"]
    assert made.intervals()["a"].estimate == 2


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_noise() -> None:
    noise = evidence(values={"ndcg@10": BASE + NOISE - NOISE.mean(), "gauc": BASE + NOISE - NOISE.mean()})
    runs = {"champion": measured(), "better": measured(evidence(0.05)), "other": measured(noise)}
    found = compare(runs, ["ndcg@10", "gauc"])
    by_name = {(each.run, each.metric): each for each in found}
    better, other = by_name["better", "ndcg@10"], by_name["other", "ndcg@10"]
    assert better.real
    assert better.difference == pytest.approx(0.05)
    assert (better.low, better.high) == pytest.approx((0.05, 0.05))
    assert not other.real
    assert other.low < other.difference < other.high
    # At the level of the least p of four: 1 - .05 / 4.
    assert other.detectable == pytest.approx((2.4977 + 0.8416) * NOISE.std(ddof=1) / np.sqrt(300), rel=0.01)
    assert by_name["better", "gauc"].users == 250


def test_pairing_finds_what_two_intervals_would_hide() -> None:
    """Users differ by far more than the models do: only the paired difference shows it."""
    worse = evidence(values={"ndcg@10": BASE - 0.01 * RNG.random(300), "gauc": BASE})
    (found,) = compare({"a": measured(), "b": measured(worse)}, ["ndcg@10"])
    assert found.real
    assert found.high < 0
    first, second = evidence().intervals()["ndcg@10"], worse.intervals()["ndcg@10"]
    assert first.low < second.high


def test_many_comparisons_are_corrected() -> None:
    """p of .01 among ten runs is .1 after Holm: ten tries are not one."""
    values = BASE + NOISE - NOISE.mean() + 2.5 * NOISE.std() / np.sqrt(300)
    lucky = measured(evidence(values={"ndcg@10": values, "gauc": BASE}))
    runs = {"champion": measured()} | {f"run{n}": lucky for n in range(10)}
    alone = compare({"champion": runs["champion"], "run0": runs["run0"]}, ["ndcg@10"])[0]
    among = compare(runs, ["ndcg@10"])
    assert alone.real
    assert not any(each.real for each in among)
    assert among[0].p == pytest.approx(10 * alone.p)


def test_a_run_is_held_against_each_of_the_others() -> None:
    """In what both have; p is corrected once, for all of them."""
    alone = Evidence(USERS, {"gauc": np.where(np.arange(300) < 50, np.nan, BASE - 0.1)}, evidence().weights)
    runs = {"model": measured(), "popularity": measured(evidence(-0.05)), "knn": measured(alone)}
    found = hold_against("model", runs, ["ndcg@10", "gauc", "auc"])
    assert [(each.run, each.against, each.metric) for each in found] == [
        ("model", "popularity", "ndcg@10"),
        ("model", "popularity", "gauc"),
        ("model", "knn", "gauc"),
    ]
    assert all(each.real and each.difference > 0 for each in found)
    assert found[2].difference == pytest.approx(0.1)
    assert found[2].p == pytest.approx(3 / 10_001)


def test_slices_are_compared_by_themselves() -> None:
    rows = {("returning", "new"): np.arange(20), ("returning", "returning"): np.arange(20, 300)}
    better = evidence(values={"ndcg@10": BASE + np.where(np.arange(300) < 20, 0.1, 0.0), "gauc": BASE})
    runs = {
        name: measured(each, slices={key: each.take(chosen, ["ndcg@10"]) for key, chosen in rows.items()})
        for name, each in (("a", evidence()), ("b", better))
    }
    new, returning = compare(runs, ["ndcg@10"], slices=list(rows))
    assert (new.by, new.slice, new.users, new.real) == ("returning", "new", 20, True)
    assert new.difference == pytest.approx(0.1)
    assert (returning.slice, returning.users, returning.real, returning.difference) == ("returning", 280, False, 0.0)
    with pytest.raises(DataError, match="no slice age=30; expected one of returning=new, returning=returning"):
        compare(runs, ["ndcg@10"], slices=[("age", "30")])


def test_slices_of_one_name_must_mean_the_same() -> None:
    """The same users may be in the head of a fifth and in that of half of the items."""
    part = {("item_frequency", "head"): evidence().take(np.arange(20), ["ndcg@10"])}
    runs = {
        name: measured(slices=part, slicings={"item_frequency": share}) for name, share in (("a", ".2"), ("b", ".5"))
    }
    with pytest.raises(DataError, match="sliced by item_frequency in two ways"):
        compare(runs, ["ndcg@10"], slices=list(part))
    assert compare(runs, ["ndcg@10"])


def test_hundreds_of_comparisons_can_still_find_something() -> None:
    better = measured(evidence(0.5).take(np.arange(50), ["ndcg@10"]))
    runs = {"champion": measured(evidence().take(np.arange(50), ["ndcg@10"]))} | {f"run{n}": better for n in range(600)}
    assert all(each.real for each in compare(runs, ["ndcg@10"]))


def test_intervals_stay_where_the_metric_can_be() -> None:
    values = np.zeros(30)
    values[:4] = [1.0, 1.0, 0.9, 0.2]
    found = Evidence(USERS[:30], {"ndcg@10": values, "popularity@10": 9 * values}).intervals()
    assert 0 <= found["ndcg@10"].low < found["ndcg@10"].high <= 1
    assert found["popularity@10"].high > 1


@pytest.mark.parametrize(
    ("runs", "metrics", "text"),
    [
        ({"a": measured()}, ["ndcg@10"], "at least two"),
        ({"a": measured(), "b": measured(data_digest="e" * 64)}, ["ndcg@10"], "different data"),
        ({"a": measured(), "b": measured(part="valid")}, ["ndcg@10"], "test and the valid part"),
        ({"a": measured(), "b": measured(evidence(users=USERS[::-1]))}, ["ndcg@10"], "other users"),
        ({"a": measured(), "b": measured()}, ["recall@10"], "no metric 'recall@10'"),
    ],
)
def test_what_cannot_be_compared(runs: dict[str, Measured], metrics: list[str], text: str) -> None:
    with pytest.raises(DataError, match=text):
        compare(runs, metrics)


def test_values_must_be_of_the_users() -> None:
    with pytest.raises(ValueError, match="300 users"):
        evidence(values={"ndcg@10": BASE[:-1]})
