"""The catalogue in a graph: the features that a batch would hold, of any items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from tests.worlds import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared"))


def test_it_holds_what_a_batch_holds(world: Prepared) -> None:
    inputs = next(iter(Examples(world, "train", 64, seed=0).batches(0)))
    found = Catalogue.of(world).features(inputs["item_index"])
    assert found.keys() == inputs["item"].keys() == {"movie_id", "genres", "price"}
    for name, expected in inputs["item"].items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_any_shape_of_indices(world: Prepared) -> None:
    catalogue = Catalogue.of(world)
    assert catalogue.size == 30
    found = catalogue.features(tf.constant([[0, 29, 3], [3, 3, 1]]))
    np.testing.assert_array_equal(found["movie_id"], np.array([[0, 29, 3], [3, 3, 1]]) + 2)
    assert found["genres"].shape == (2, 3, 3)
    np.testing.assert_array_equal(found["genres"][0, 1], world.item_features["genres"][29])


def test_a_graph_holds_no_copy() -> None:
    """Not even one that is traced before anything has been looked up."""
    columns = {"price": np.arange(500.0, dtype=np.float32), "tags": np.ones((500, 3), np.int32)}
    catalogue = Catalogue(np.ones(500), columns)
    graph = tf.function(catalogue.features).get_concrete_function(tf.TensorSpec([None], tf.int32)).graph
    constants = [op for op in graph.get_operations() if op.type == "Const"]
    assert all(np.prod(op.outputs[0].shape) < 2 for op in constants)
    assert len(graph.captures) == 2
    found = tf.function(catalogue.features)(tf.constant([5]))
    np.testing.assert_array_equal(found["price"], [5.0])


def test_features_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features of 2 items are needed, and these have others: {'a': 3}"):
        Catalogue([1, 2], {"a": np.zeros(3), "b": np.zeros(2)})


def test_without_features_counts_are_enough(tmp_path: Path) -> None:
    assert Catalogue([1.0, 2.0]).size == 2
    assert Catalogue([1.0, 2.0]).features(tf.constant([0])) == {}
