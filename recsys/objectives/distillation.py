"""What a teacher knows of items, taught to an item tower: for items that nobody has met yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.objectives.listing import Encode, Features


@dataclass(frozen=True)
class Teacher:
    """A trained run's vectors of a catalogue."""

    vectors: NDArray[np.float32]
    """[N, d]"""
    known: NDArray[np.bool_]
    """[N] whether its training met the item: of the others it has nothing to teach."""


class Distillation:
    """How far an item tower's vectors are from a teacher's, with everything known of an item and with its id unknown:

        weight / 2 * (1 - cos(f(x_i), t_i) + 1 - cos(f(x_i without its id), t_i))

    The first term puts the tower, and by the main loss the query tower, into the teacher's space; the second makes
    content say there what the teacher learned from events. Items that the teacher did not know count nothing. A step
    costs what its items cost.

    Args:
        teacher: of the same catalogue; its width is that of the tower.
        weight: of the whole.
        unknown: the features that are taken for unknown, and how many ids of unknown values each has.
        encode: the item tower.
    """

    def __init__(self, teacher: Teacher, weight: float, unknown: Mapping[str, int], encode: Encode) -> None:
        self._weight, self._unknown, self._encode = weight, dict(unknown), encode
        lengths = np.linalg.norm(teacher.vectors, axis=1, keepdims=True)
        self._vectors = tf.constant(teacher.vectors / np.maximum(lengths, 1e-12), tf.float32)
        self._known = tf.constant(teacher.known, tf.float32)

    def __call__(self, item: Features, item_index: tf.Tensor, training: bool) -> tf.Tensor:
        """[b] for items with these encoded features [b, ...]."""
        hidden = {name: self._without(name, values, item_index) for name, values in item.items()}
        both = {name: tf.concat([item[name], hidden[name]], 0) for name in item}
        found = tf.math.l2_normalize(self._encode(both, training), -1)
        target = tf.tile(tf.gather(self._vectors, item_index), [2, 1])
        distance = tf.reshape(1.0 - tf.reduce_sum(found * target, -1), [2, -1])
        return self._weight * tf.reduce_mean(distance, 0) * tf.gather(self._known, item_index)

    def _without(self, name: str, values: tf.Tensor, item_index: tf.Tensor) -> tf.Tensor:
        """Each item with one of the ids of unknown values, as a hash of its text would give it one."""
        if name not in self._unknown:
            return values
        return tf.cast(1 + item_index % self._unknown[name], values.dtype)
