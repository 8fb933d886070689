"""Do the intervals hold the truth as often as they say, and does the comparison cry wolf as rarely as it says?

    python benchmarks/significance.py             simulates what has no record yet, in minutes
    python benchmarks/significance.py --write     the tables in docs/metrics.md

Users are drawn from laws whose mean is known, 5,000 times; every interval is asked whether it holds the mean. For the
comparison each user is measured twice under one law, so that every difference found is a false one. The figures are in
benchmarks/results/significance.json; a study that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from table import markdown, write_marked

from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.metrics import Interval, bootstrap_interval, bootstrap_intervals, intervals, randomization_test

RESULTS = Path(__file__).parent / "results" / "significance.json"
PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
MARKS = "<!-- figures: python benchmarks/significance.py --write -->\n", "<!-- /figures -->\n"
FORMULA_MARKS = "<!-- formula: python benchmarks/significance.py --write -->\n", "<!-- /formula -->\n"

Users = NDArray[np.float64]
USERS = (100, 1_000, 10_000)
"""The last is `intervals.MANY`, from where on formulas stand in for draws."""
REPETITIONS = 5_000
TOGETHER = 100
"""Repetitions that share their draws, as the metrics of one evaluation do."""
LIMIT = 50_000
"""Resamples that stand for endlessly many."""
FLIPS = 1_999
"""Draws of signs: the test has its level with any number of them, and 5% of these and the observed one are 100."""


@dataclass(frozen=True)
class Law:
    """How users come out, [U, R] for R repetitions; all their weights in one column if they are alike."""

    name: str
    mean: float
    """Σ w x / Σ w of endlessly many users."""
    weights: Callable[[np.random.Generator, int], Users]
    values: Callable[[np.random.Generator, Users], Users]
    """Given the weights; called twice, two equally good models for the same users."""


def alike(rng: np.random.Generator, users: int) -> Users:
    return np.ones((users, 1))


def normal(rng: np.random.Generator, weights: Users) -> Users:
    return rng.normal(0.5, 0.2, (len(weights), TOGETHER))


def graded_hits(rng: np.random.Generator, weights: Users) -> Users:
    return np.where(rng.random((len(weights), TOGETHER)) < 0.2, rng.random((len(weights), TOGETHER)), 0.0)


def sparse_hits(rng: np.random.Generator, weights: Users) -> Users:
    return np.where(rng.random((len(weights), TOGETHER)) < 0.02, 1.0, 0.0)


def impressions(rng: np.random.Generator, users: int) -> Users:
    """Most users have few, some have many: 4 on average."""
    return rng.geometric(1 / 4, (users, TOGETHER)).astype(np.float64)


def share_clicked(rng: np.random.Generator, shown: Users) -> Users:
    """Users with few impressions click more often: of all, 0.05 + 0.1 / 4."""
    clicks = rng.binomial(shown.astype(np.int64), rng.beta(2, 2 / (0.05 + 0.1 / shown) - 2))
    return np.asarray(clicks / shown, np.float64)


LAWS = (
    Law("symmetric: normal", 0.5, alike, normal),
    Law("nDCG: 20% hit, uniform", 0.1, alike, graded_hits),
    Law("clicks / impressions", 0.075, impressions, share_clicked),
    Law("sparse: 2% hit", 0.02, alike, sparse_hits),
)


def coverage(law: Law, users: int) -> dict[str, Any]:
    """Shares of repetitions: `held` the mean; `interval` and `test` found a difference where there is none."""
    held: list[bool] = []
    by_interval: list[bool] = []
    by_test: list[bool] = []
    for seed, rng in enumerate(np.random.default_rng(users).spawn(REPETITIONS // TOGETHER)):
        weights = law.weights(rng, users)
        before, after = law.values(rng, weights), law.values(rng, weights)
        held += [each.low <= law.mean <= each.high for each in found(after, weights, seed=seed)]
        differences = after - before
        by_interval += [not each.low <= 0 <= each.high for each in found(differences, weights, seed=seed, signed=True)]
        by_test += [
            randomization_test(x, w, resamples=FLIPS, seed=seed * TOGETHER + at) <= 0.05
            for at, (x, w) in enumerate(zip(differences.T, np.broadcast_to(weights, differences.shape).T, strict=True))
        ]
    shares = {"held": held, "interval": by_interval, "test": by_test}
    return {name: float(np.mean(each)) for name, each in shares.items()} | {"repetitions": len(held)}


def formula(law: Law) -> dict[str, float]:
    """How far the ends of intervals of MANY users are from those of LIMIT resamples, in standard errors (r.m.s.)."""
    rng = np.random.default_rng(0)
    weights = law.weights(rng, intervals.MANY)
    values = law.values(rng, weights)
    by_formula = ends(found(values, weights))
    with patch.object(intervals, "MANY", intervals.MANY + 1):
        by_draws = ends(found(values, weights))
        limit = ends(found(values, weights, resamples=LIMIT, seed=1))
    error = np.diff(limit, axis=1) / 2 / 1.96
    return {
        name: float(np.sqrt(np.mean(((each - limit) / error) ** 2)))
        for name, each in {"formula": by_formula, "draws": by_draws}.items()
    }


def found(
    values: Users, weights: Users, *, resamples: int = 2_000, seed: int = 0, signed: bool = False
) -> list[Interval]:
    all_ = bootstrap_intervals(values, weights, resamples=resamples, seed=seed, signed=signed)
    return [each for each in all_ if each is not None]


def ends(found: list[Interval]) -> Users:
    """[R, 2]"""
    return np.array([[each.low, each.high] for each in found])


def seconds() -> dict[str, float]:
    """Of all processors together, best of three: what else the machine does is of no matter."""
    rng = np.random.default_rng(0)
    values = (rng.random((100_000, 18)) < 0.2) * rng.random((100_000, 18))
    tasks: dict[str, Callable[[], object]] = {
        "intervals of 18 metrics, 100,000 users": lambda: bootstrap_intervals(values),
        "intervals of 18 metrics, 9,999 users": lambda: bootstrap_intervals(values[:9_999]),
        "interval of one metric, 9,999 users": lambda: bootstrap_interval(values[:9_999, 0]),
        "sign-flip test, 100,000 users": lambda: randomization_test(values[:, 0] - values[:, 1]),
        "sign-flip test, 9,999 users who all differ": lambda: randomization_test(rng.random(9_999) - 0.5),
    }
    return {name: min(timed(task) for _ in range(3)) for name, task in tasks.items()}


def timed(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def read() -> dict[str, Any]:
    """The record; what is not there yet is empty."""
    if not RESULTS.exists():
        return {"environment": {}, "coverage": {}, "formula": {}, "seconds": {}}
    record: dict[str, Any] = json.loads(RESULTS.read_text())
    return record


def study() -> None:
    """Simulates what has no record."""
    record = read()
    record["environment"] = Environment.here().model_dump()
    for place, name, task in tasks():
        if name not in record[place]:
            record[place][name] = task()
            write_text(RESULTS, json.dumps(record, indent=2) + "\n")
            print(f"{name:40}", record[place][name], flush=True)
    record["seconds"] = record["seconds"] or seconds()
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


def tasks() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Where in the record, its name there, and what makes it."""
    for law in LAWS:
        for users in USERS:
            yield "coverage", f"{law.name} | {users:,}", partial(coverage, law, users)
    for law in LAWS:
        yield "formula", law.name, partial(formula, law)


def tables() -> dict[tuple[str, str], str]:
    """By marks."""
    record = read()
    shares = [
        [*name.split(" | "), *(f"{100 * each[share]:.1f}%" for share in ("held", "interval", "test"))]
        for name, each in record["coverage"].items()
    ]
    held = ["law", "users", "95% intervals that hold the mean", "differences found by interval", "by sign-flip test"]
    distances = [[name, f"{each['formula']:.3f}", f"{each['draws']:.3f}"] for name, each in record["formula"].items()]
    apart = [f"ends of an interval, {USERS[-1]:,} users", "formula", "2,000 resamples"]
    times = [[name, f"{1_000 * each:,.0f}"] for name, each in record["seconds"].items()]
    return {
        MARKS: markdown(held, shares),
        FORMULA_MARKS: markdown(apart, distances) + "\n" + markdown(["processor milliseconds", "best of three"], times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into the docs page, simulate nothing")
    if parser.parse_args().write:
        for marks, text in tables().items():
            write_marked(PAGE, text, marks)
    else:
        study()


if __name__ == "__main__":
    main()
