"""Views of embedded features: what stands where, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from recsys._compat import tf
from recsys.embeddings.embedded import Embedded, Group, Padded


def group(first: float, *names: str, width: int = 2, batch: int = 3) -> Group:
    """Numbers from `first` on, all different."""
    values = first + np.arange(batch * len(names) * width, dtype=np.float32)
    return Group(names, tf.constant(values.reshape(batch, len(names), width)))


def vector_of(groups: list[Group], name: str) -> np.ndarray:
    (found,) = [g.values[:, g.names.index(name)].numpy() for g in groups if name in g.names]
    return found


GROUPS = [group(0, "b", "c", "a"), group(100, "e", "d"), group(200, "f")]


@pytest.mark.parametrize("order", ["abcdef", "bcaedf", "fedcba", "cabedf", "adbecf"])
def test_whatever_lies_side_by_side_every_view_has_the_order_that_was_asked(order: str) -> None:
    embedded = Embedded(list(order), GROUPS)
    expected = [vector_of(GROUPS, name) for name in order]
    np.testing.assert_array_equal(embedded.concat(), np.concatenate(expected, 1))
    np.testing.assert_array_equal(embedded.fields(), np.stack(expected, 1))
    assert list(embedded.vectors()) == list(order)
    for name, vector in zip(order, embedded.vectors().values(), strict=True):
        np.testing.assert_array_equal(vector, vector_of(GROUPS, name))
    assert embedded.layout() == [(name, 2) for name in order]


def test_widths_may_differ_but_not_in_a_stack() -> None:
    groups = [group(0, "a", "b"), group(50, "c", width=5), group(80, "n", width=1)]
    embedded = Embedded(["n", "a", "c", "b"], groups)
    assert embedded.layout() == [("n", 1), ("a", 2), ("c", 5), ("b", 2)]
    assert embedded.concat().shape == (3, 10)
    expected = [vector_of(groups, name) for name in ("n", "a", "c", "b")]
    np.testing.assert_array_equal(embedded.concat(), np.concatenate(expected, 1))
    with pytest.raises(ValueError, match="n 1, a 2, c 5, b 2"):
        embedded.fields()
    assert Embedded(["b", "a"], groups[:1]).fields().shape == (3, 2, 2)


def test_what_one_lookup_left_side_by_side_is_not_copied() -> None:
    """A lookup's result in the asked order is a reshape away; a concatenation would copy a batch of vectors."""

    def operations(order: str) -> set[str]:
        def view(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            embedded = Embedded(list(order), [Group(tuple("abc"), values)])
            return embedded.concat(), embedded.fields()

        graph = tf.function(view).get_concrete_function(tf.TensorSpec([None, 3, 2])).graph
        return {operation.type for operation in graph.get_operations()}

    assert "ConcatV2" not in operations("abc")
    assert "StridedSlice" not in operations("abc")
    assert "ConcatV2" in operations("acb")


def test_sequences_stand_apart() -> None:
    padded = Padded(tf.zeros([3, 4, 2]), tf.zeros([3, 4], tf.bool))
    embedded = Embedded(["a", "b", "c"], GROUPS[:1], {"s": padded})
    assert embedded.concat().shape == (3, 6)
    assert embedded.sequences["s"] is padded
    assert list(embedded.vectors()) == ["a", "b", "c"]


def test_a_batch_without_rows() -> None:
    embedded = Embedded(["c", "d"], [group(0, "c", "d", batch=0)])
    assert embedded.concat().shape == (0, 4)
    assert embedded.fields().shape == (0, 2, 2)
    assert {name: tuple(vector.shape) for name, vector in embedded.vectors().items()} == {"c": (0, 2), "d": (0, 2)}
