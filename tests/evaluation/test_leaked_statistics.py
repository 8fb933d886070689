"""Counts, vocabularies, means and quantiles that are not those of the training part are found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.spoiling import ITEMS


def test_popularity_of_the_whole_log(world):
    spoiled = world("temporal")
    counts = spoiled.rows("items")["train_count"]
    liked = [rows["item_index"][rows["label"] > 0] for rows in map(spoiled.rows, ("train", "valid", "test"))]
    whole = np.bincount(np.concatenate(liked), minlength=len(counts))
    spoiled.set("items", "train_count", whole)
    assert f"column 'train_count': {(whole != counts).sum()} of {ITEMS} counts are not those of the training part" in (
        spoiled.only()
    )


@pytest.mark.parametrize("feature", ["user_id", "item_id", "tags", "device", "query"])
def test_a_vocabulary_of_more_than_the_training_part(world, feature):
    spoiled = world("temporal")
    counts = spoiled.rows(f"vocab/{feature}")["count"]
    spoiled.put(f"vocab/{feature}", len(counts) - 1, count=counts[-1] + 1)
    found = spoiled.only()
    assert f"vocab/{feature}.parquet: 1 of {len(counts)} counts" in found
    assert f": {counts[-1] + 1})" in found


def test_a_value_that_training_holds_too_seldom(world):
    spoiled = world("temporal")
    least = spoiled.rows("vocab/item_id")["count"].min()
    spoiled.info(lambda info: info["table_schema"]["features"]["item_id"]["encoding"].update(min_count=int(least) + 1))
    assert "vocab/item_id.parquet" in spoiled.only()


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("feature", ["price", "joined", "year", "hour", "basket", "size", "sizes"])
def test_a_mean_or_deviation_that_is_not_of_training(world, feature, key):
    spoiled = world("temporal")

    def change(info: dict) -> None:
        info["features"][feature][key] += 1e-4 * abs(info["features"][feature]["mean"])

    spoiled.info(change)
    word = {"mean": "its mean is", "std": "its standard deviation is"}[key]
    assert f"temporal: feature {feature!r}: {word}" in spoiled.only()


@pytest.mark.parametrize("spoil", [lambda bounds: bounds[1:], lambda bounds: [*bounds, bounds[-1] + 1]])
def test_buckets_that_are_not_the_frequent_whole_numbers_of_training(world, spoil):
    spoiled = world("temporal")

    def change(info: dict) -> None:
        assert len(info["features"]["sizes"]["boundaries"]) > 2
        info["features"]["sizes"]["boundaries"] = spoil(info["features"]["sizes"]["boundaries"])

    spoiled.info(change)
    assert "feature 'sizes': its" in (found := spoiled.only())
    assert "are other numbers" in found


@pytest.mark.parametrize("feature", ["year", "hour"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda bounds: [bounds[0], bounds[1] - 0.5, *bounds[2:]],
        lambda bounds: [bounds[0], bounds[1] + 0.5, *bounds[2:]],
        lambda bounds: bounds[:-1],
        lambda bounds: [bounds[0] - 0.5, *bounds],
    ],
    ids=["early", "late", "missing", "too many"],
)
def test_quantiles_that_are_not_of_training(world, feature, spoil):
    spoiled = world("temporal")

    def change(info: dict) -> None:
        info["features"][feature]["boundaries"] = spoil(info["features"][feature]["boundaries"])

    spoiled.info(change)
    assert f"feature {feature!r}: its" in (found := spoiled.only())
    assert "bucket boundaries are no quantiles" in found
