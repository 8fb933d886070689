"""A run as a teacher: which items it knows, and what it may not have seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import ConfigError
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.training.teacher import teacher_of
from tests.worlds import EMBEDDINGS, write_world


def changed(path: Path, file: str, name: str, values: pa.Array) -> Prepared:
    """The small world with other values in a column."""
    write_world(path)
    table = pq.read_table(path / file)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, values), path / file)
    return Prepared(path)


@pytest.fixture
def world(tmp_path: Path) -> Prepared:
    return Prepared(write_world(tmp_path / "world"))


def two_tower(world: Prepared) -> TwoTower:
    config = TwoTowerConfig.model_validate({"kind": "two_tower", "query": {"output_dim": 6}, "item": {"output_dim": 6}})
    embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS)
    model = make_model(config, embeddings, world.info.features, Catalogue.of(world), seed=0)
    assert isinstance(model, TwoTower)
    return model


def test_items_are_known_by_their_texts(world: Prepared, tmp_path: Path) -> None:
    """In the student's catalogue the first ten have other names, and the rest stands in reverse."""
    names = [f"new {n}" for n in range(10)] + [f"i{n:03d}" for n in reversed(range(10, 30))]
    student = changed(tmp_path / "student", "items.parquet", "item", pa.array(names))
    # Held-out events are told by texts too, and these are other ones.
    model, counts = two_tower(world), world.train_count.copy()
    counts[29] = 0
    world.train_count = counts
    student.events = replace(student.events, stage=np.zeros_like(student.events.stage))
    found = teacher_of(student, 6, model, world)
    assert found.known.tolist() == [False] * 10 + [False] + [True] * 19
    vectors = model.item_vectors(world.item_features)
    np.testing.assert_array_equal(found.vectors[11:], vectors[10:29][::-1])
    assert not found.vectors[:11].any()


def test_a_teacher_of_the_same_split_has_seen_nothing_that_is_held_out(world: Prepared) -> None:
    assert teacher_of(world, 6, two_tower(world), world).known.all()


def test_a_teacher_that_has_seen_the_future(world: Prepared, tmp_path: Path) -> None:
    """It was trained on the validation event of each user, but for the student's."""
    taught = changed(
        tmp_path / "taught",
        "events/part-00000.parquet",
        "stage",
        pa.array(np.tile(np.array([0] * 11 + [2], np.int8), 40)),
    )
    with pytest.raises(ConfigError, match=r"was trained on [34]\d events of this run's validation or test part"):
        teacher_of(world, 6, two_tower(world), taught)


def test_vectors_of_another_width(world: Prepared) -> None:
    with pytest.raises(ConfigError, match="its vectors have 6 numbers, and this item tower ends in 8"):
        teacher_of(world, 8, two_tower(world), world)
