"""Slices: who is in which, worked out by hand or by a slow second opinion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from recsys.data.dataset import CategoricalInfo
from recsys.data.prepared import Prepared
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.slices import (
    Slicing,
    _by_activity,
    _by_frequency,
    _by_range,
    _by_value,
    context_slicings,
    history_slicings,
    item_slicings,
    positive_training_events,
    user_slicings,
)
from recsys.experiment_config import ExperimentConfig
from tests.worlds import EMBEDDINGS, SCHEMA, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("slices") / "world", users=12))


def config(*slices: dict) -> EvaluationConfig:
    return EvaluationConfig.model_validate({"slices": slices})


def names(slicings: list[Slicing]) -> list[tuple[str, list[str]]]:
    return [(each.by, list(each.members)) for each in slicings]


def test_items_by_frequency() -> None:
    """Ten trained items: one is the head, five are the tail; equal counts go by index, shares are exact."""
    counts = np.array([0, 5, 5, 9, 5, 5, 5, 5, 5, 5, 5, 0])
    (frequency,) = EvaluationConfig().slices[:1]
    members = _by_frequency(counts, frequency)  # type: ignore[arg-type]
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in members.items()} == {
        "head": [3],
        "torso": [1, 2, 4, 5],
        "tail": [6, 7, 8, 9, 10],
        "cold": [0, 11],
    }


def test_users_by_activity() -> None:
    """Thirds of the active users; equal users stay together; new ones are by themselves."""
    events = np.array([0, 1, 1, 1, 2, 3, 3, 8, 9, 20])
    members = _by_activity(events, 3)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in members.items()} == {
        "0": [0],
        "1": [1, 2, 3],
        "2-3": [4, 5, 6],
        "4-20": [7, 8, 9],
    }
    assert list(_by_activity(np.array([4, 4, 4]), 3)) == ["0", "1-4"]
    assert list(_by_activity(np.zeros(3, int), 3)) == ["0"]


@pytest.mark.parametrize("seed", range(5))
def test_activity_divides_the_users(seed: int) -> None:
    events = np.random.default_rng(seed).zipf(1.7, 500) - 1
    members = np.stack(list(_by_activity(events, 4).values()))
    assert (members.sum(0) == 1).all()


def test_ranges_take_their_lower_edge_in() -> None:
    members = _by_range(np.array([1.0, 2.0, 2.5, 10.0, np.nan]), (2.0, 10.0))
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in members.items()} == {
        "< 2": [0],
        "2 to 10": [1, 2],
        ">= 10": [3],
        "missing": [4],
    }


def test_float32_values_on_an_edge_and_edges_that_are_near() -> None:
    """19.99 in float32 is below 19.99; six digits do not tell these times apart."""
    prices = np.array([0.7, 19.99, 19.98], np.float32)
    assert {name: chosen.tolist() for name, chosen in _by_range(prices, (0.7, 19.99)).items()} == {
        "< 0.7": [False, False, False],
        "0.7 to 19.99": [True, False, True],
        ">= 19.99": [False, True, False],
        "missing": [False, False, False],
    }
    times = np.array([1_600_000_200, 1_600_000_700], np.float32)
    members = _by_range(times, (1_600_000_000.0, 1_600_000_512.0, 1_600_001_024.0))
    assert len(members) == 5
    assert sum(chosen.sum() for chosen in members.values()) == 2


def test_values_of_a_set_each_have_their_slice() -> None:
    """Ids: 0 missing, 1 OOV, then a, b, other; the vocabulary has a value that is called like the rest."""
    info = CategoricalInfo(role="item", rows=5, oov_rows=1, max_length=2)
    ids = np.array([[2, 3], [3, 4], [4, 0], [1, 0], [0, 0]])
    members = _by_value(ids, info, np.array(["a", "other", "c"], object), 2)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in members.items()} == {
        "a": [0],
        "other": [0, 1],
        "(other)": [2, 3],
        "missing": [4],
    }


def test_of_a_prepared_data_set(world: Prepared) -> None:
    wanted = config(
        {"kind": "item_frequency"},
        {"feature": "genres", "top": 2},
        {"feature": "price", "edges": [10.0]},
        {"kind": "returning"},
        {"feature": "user_id", "top": 1},
        {"feature": "device"},
    )
    assert names(item_slicings(world, wanted)) == [
        ("item_frequency", ["head", "torso", "tail"]),
        ("genres", ["g0", "g1", "other"]),
        ("price", ["< 10", ">= 10"]),
    ]
    assert names(user_slicings(world, wanted)) == [("returning", ["returning"]), ("user_id", ["u000", "other"])]
    held_out = world.held_out("test")
    (device,) = context_slicings(world, wanted, held_out.context)
    ids = held_out.context["device"]
    for at, name in enumerate(("d0", "d1")):
        assert np.array_equal(device.members[name], ids == 2 + at)
    genres = item_slicings(world, wanted)[1]
    table = world.values("genres")
    assert np.array_equal(genres.members["g1"], (table == 3).any(1))


def test_without_edges_a_number_is_cut_at_its_training_quartiles(world: Prepared) -> None:
    (price,) = item_slicings(world, config({"feature": "price"}))
    quartiles = np.quantile(world.values("price")[world.train_count > 0], (0.25, 0.5, 0.75))
    place = np.searchsorted(quartiles, world.values("price"), side="right")
    assert len(price.members) == 4
    for number, chosen in enumerate(price.members.values()):
        assert np.array_equal(chosen, place == number)


def test_examples_by_what_their_histories_hold(tmp_path: Path) -> None:
    """Against a slow second opinion that looks at every example; a history is what a model of the longest one reads."""
    world = Prepared(write_world(tmp_path / "world", users=25, items=200, per_user=9))
    wanted = config({"kind": "in_history"}, {"kind": "in_history", "feature": "genres"})
    found = {each.by: each.members for each in history_slicings(world, "train", wanted)}
    rows = world.examples("train", ["user_index", "item_index", "history_stop"]).to_pylist()
    genres = [set(ids) for ids in world.values("genres")[:, :2].tolist()]
    expected: dict[str, list[str]] = {"item_in_history": [], "genres_in_history": []}
    for row in rows:
        start = max(world.event_start[row["user_index"]], row["history_stop"] - 4)
        history = world.events.item_index[start : row["history_stop"]].tolist()
        held = {
            "item_in_history": row["item_index"] in history,
            "genres_in_history": any(genres[row["item_index"]] & genres[item] for item in history),
        }
        for by, inside in held.items():
            expected[by].append(("present" if inside else "absent") if history else "no history")
    for by, names in expected.items():
        for name in ("present", "absent", "no history"):
            assert names.count(name) > 0, (by, name)
            assert np.array_equal(found[by][name], np.array(names) == name), (by, name)


def test_new_users_have_no_positive_training_event(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world", users=4)
    path = folder / "events" / "part-00000.parquet"
    events = pq.read_table(path).to_pandas()
    events.loc[events.user_index == 2, "stage"] = 2
    events.to_parquet(path, index=False)
    prepared = Prepared(folder)
    assert positive_training_events(prepared).tolist() == [10, 10, 0, 10]
    (returning,) = user_slicings(prepared, config({"kind": "returning"}))
    assert returning.members["new"].tolist() == [False, False, True, False]
    assert returning.take(np.array([2, 2])).members.keys() == {"new"}  # no slice is empty


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            {"slices": [{"feature": "history"}]},
            r"slices.0.feature.*history is a sequence; name one of user_id, movie_id",
        ),
        ({"slices": [{"feature": "colour"}]}, "no feature 'colour' in the schema"),
        ({"slices": [{"feature": "device", "edges": [1.0]}]}, "device is categorical and has no ranges"),
        (
            {"slices": [{"kind": "in_history", "feature": "device"}]},
            r"slices.0.feature.*device describes the context, not the item",
        ),
        ({"slices": [{"kind": "in_history"}]}, r"slices.0.*in_history divides the examples of a ranker.*remove it"),
        (
            {"slices": [{"kind": "in_history"}, {"kind": "in_history"}]},
            "item_in_history is sliced by twice; remove one",
        ),
        ({"category": "price"}, "price is a numeric; name one of user_id, movie_id, genres, device"),
        ({"category": "device"}, "device describes the context, not the item"),
        ({"category": "none"}, "no feature 'none' in the schema"),
    ],
)
def test_what_does_not_fit_the_schema(evaluation: dict, message: str) -> None:
    whole = {
        "name": "x",
        "data": {"source": {"kind": "public", "name": "x"}},
        "schema": SCHEMA,
        "embeddings": EMBEDDINGS,
        "model": {"kind": "two_tower", "query": {"output_dim": 4}, "item": {"output_dim": 4}},
    }
    ExperimentConfig.model_validate(whole)
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        ExperimentConfig.model_validate(whole | {"evaluation": evaluation})


def test_hashes_say_nothing_of_values() -> None:
    schema = SCHEMA | {"features": {"tag": {"kind": "categorical", "role": "item", "encoding": {"kind": "hash"}}}}
    from recsys.schema.config import SchemaConfig

    (problem,) = EvaluationConfig(category="tag").problems(SchemaConfig.model_validate(schema))
    assert problem == (("category",), "tag is encoded by hash, without a vocabulary; remove it")
