"""Leaks where negatives are sampled and where examples must have a history: events and examples are not the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.prepared import Prepared
from recsys.evaluation.leakage import find_leaks
from tests.evaluation.spoiling import LIKED, World, prepared

ALL = {"sampled_negatives": {"per_positive": 2, "distribution": "uniform"}, "rows_per_group": 300}
POPULAR = {"sampled_negatives": {"per_positive": 1, "distribution": "popularity"}, "rows_per_group": 300}
PROTOCOLS = {
    "din": ("leave_last_out", ALL | {"min_history": 1}),
    "dare": ("leave_last_out", POPULAR | {"min_history": 20}),
    "frappe": ("random, no time", ALL),
    "random": ("random", ALL | {"min_history": 2}),
    "temporal": ("temporal", POPULAR),
    "users": ("by_user", ALL | {"min_history": 3}),
    "logged": ("temporal", LIKED | {"min_history": 10}),
    "window": ("window", LIKED | {"min_history": 5}),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    done: dict[str, Path] = {}

    def folder(protocol: str) -> Path:
        if protocol not in done:
            name, rules = PROTOCOLS[protocol]
            done[protocol] = prepared(tmp_path_factory.mktemp("sound") / "world", name, rules=rules)
        return done[protocol]

    return folder


@pytest.fixture
def world(sound, tmp_path):
    return lambda protocol: World(Path(shutil.copytree(sound(protocol), tmp_path / "spoiled")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sound_protocols_have_no_leaks(sound, protocol):
    prepared = Prepared(sound(protocol))
    assert find_leaks(prepared) == []
    if "min_history" in PROTOCOLS[protocol][1]:
        examples = sum(
            prepared.examples(part, ["label"])["label"].to_numpy().sum() for part in ("train", "valid", "test")
        )
        assert examples < (prepared.events.stage < 3).sum(), "every event is an example: nothing is tested"


@pytest.mark.parametrize("protocol", ["din", "logged"])
def test_counts_of_more_than_the_training_events(world, protocol):
    """With sampled negatives, those; with least histories, held-out events."""
    spoiled = world(protocol)
    rows, count = spoiled.rows("train" if protocol == "din" else "events"), spoiled.rows("items")["train_count"]
    spoiled.set("items", "train_count", np.bincount(rows["item_index"], minlength=len(count)))
    assert "items.parquet: column 'train_count'" in spoiled.only()


def test_counts_of_examples_alone(world):
    """Training events that are no examples count."""
    spoiled = world("dare")
    rows, count = spoiled.rows("train"), spoiled.rows("items")["train_count"]
    examples = np.bincount(rows["item_index"][rows["label"] == 1], minlength=len(count))
    assert 0 < examples.sum() < count.sum()
    spoiled.set("items", "train_count", examples)
    assert "items.parquet: column 'train_count'" in spoiled.only()


@pytest.mark.parametrize(("protocol", "entity"), [("din", "item"), ("logged", "item"), ("window", "user")])
def test_a_statistic_of_the_whole_log(world, protocol, entity):
    spoiled = world(protocol)
    events = spoiled.rows("events")
    size = len(spoiled.rows(f"{entity}s")["event_count" if entity == "user" else "train_count"])
    whole = np.bincount(events[f"{entity}_index"], minlength=size)
    known = np.bincount(events[f"{entity}_index"][np.isin(events["stage"], (0, 3))], minlength=size)
    name = {"item": "price", "user": "joined"}[entity]
    spoiled.feature(entity, name, known)
    assert spoiled.found() == []
    spoiled.feature(entity, name, whole)
    assert f"{entity} feature '{name}': it is, or nearly is, the number of" in spoiled.only()


def planted(spoiled, label):
    """A training example of this label takes the place of one of the test part."""
    train, test = (spoiled.read(part) for part in ("train", "test"))
    found = {name: np.flatnonzero(table["label"].to_numpy() == label) for name, table in (("a", train), ("b", test))}
    rows = test.to_pylist()
    rows[found["b"][0]] = train.slice(int(found["a"][0]), 1).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist(rows, test.schema), spoiled.path / "test" / "part-00000.parquet")


def test_a_sampled_negative_may_be_drawn_twice(world):
    planted(spoiled := world("frappe"), label=0)
    assert spoiled.found() == []


def test_a_copied_event_is_a_leak_beside_sampled_negatives(world):
    planted(spoiled := world("frappe"), label=1)
    assert "1 of" in (found := spoiled.only())
    assert "are copies of training examples" in found
