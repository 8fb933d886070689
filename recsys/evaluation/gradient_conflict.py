"""Whether search and representation pull the rows of a shared table apart (Feng et al., ICLR 2025, arXiv:2410.02604,
section 2.2): on Taobao TWIN's gradient through the representation is about five times as long as the one through the
attention, and in 64% of the steps the two are in conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import SequenceInfo
from recsys.embeddings.embedded import Embedded, Group, Padded
from recsys.models.base import Batch
from recsys.models.ranker import Ranker

Floats = NDArray[np.float64]
ROUNDING = 1e-5
"""Gradients at most so long, as a share of the longest, are none: what float32 leaves of sums that are zero."""


@dataclass(frozen=True)
class GradientConflict:
    """The two gradients of each row of a shared table that a batch's histories and targets read."""

    ids: NDArray[np.int64]
    """[n] the rows, by encoded id; only those that both gradients reach."""
    cosine: Floats
    """[n] between the two; below 0 they are in conflict."""
    attention: Floats
    """[n] length of the gradient through the search."""
    representation: Floats
    """[n] length of the one through everything else."""

    @property
    def conflicting(self) -> float:
        """Share of the rows that are pulled apart."""
        return float((self.cosine < 0).mean())

    @property
    def dominance(self) -> float:
        """How many times as long the representation's gradients are, on average."""
        return float(self.representation.mean() / self.attention.mean())

    @classmethod
    def joined(cls, parts: Sequence[GradientConflict]) -> GradientConflict:
        """Those of several batches as one: a row counts as often as it was met."""
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            cosine=np.concatenate([part.cosine for part in parts]),
            attention=np.concatenate([part.attention for part in parts]),
            representation=np.concatenate([part.representation for part in parts]),
        )


def gradient_conflicts(model: Ranker, batch: Batch) -> dict[str, GradientConflict]:
    """Of each history that TWIN searches, the gradients of the training loss, without dropout, on the rows of its
    table.

    The search reads a copy of the vectors, whose gradients are kept apart; no output changes. Vectors that several ids
    share (tables that hash) are told apart by id.

    Raises:
        ValueError: the model has no target attention over shared tables.
    """
    if not model.searches_shared_vectors:
        raise ValueError("the model has no target attention whose tables are shared")
    looked_up = model.embeddings({**batch["query"], **batch["item"]})
    represented, searched = _copy(looked_up), _copy(looked_up)
    with tf.GradientTape() as tape:
        tape.watch([_tensors(represented), _tensors(searched)])
        embedded = replace(represented, attention=searched)
        loss = tf.reduce_mean(model.example_losses(batch, training=False, embedded=embedded))
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(loss, [_tensors(represented), _tensors(searched)], unconnected_gradients=zero)
    through = [_with(embedded, found) for embedded, found in zip((represented, searched), gradients, strict=True)]
    sources = {name: info.of for name, info in model.embeddings.features.items() if isinstance(info, SequenceInfo)}
    ids, _ = model.embeddings.ids_and_ages(list(model.embeddings.features), {**batch["query"], **batch["item"]})
    return {
        name: _conflict([_of_ids(each, name, sources[name], ids) for each in through]) for name in model.history_names
    }


def _conflict(gradients: Sequence[tuple[NDArray[np.int64], Floats]]) -> GradientConflict:
    (ids, representation), (_, attention) = gradients
    product = (representation * attention).sum(axis=1)
    lengths = [np.linalg.norm(each, axis=1) for each in (attention, representation)]
    least = ROUNDING * max(each.max(initial=0.0) for each in lengths)
    both = (lengths[0] > least) & (lengths[1] > least)
    return GradientConflict(
        ids=ids[both],
        cosine=product[both] / (lengths[0][both] * lengths[1][both]),
        attention=lengths[0][both],
        representation=lengths[1][both],
    )


def _of_ids(
    gradients: Embedded, history: str, target: str, ids: Mapping[str, tf.Tensor]
) -> tuple[NDArray[np.int64], Floats]:
    """[n] distinct ids of a history and its target, and [n, D] the sums of their gradients."""
    of_target, of_events = gradients.vectors()[target], gradients.sequences[history]
    inside = of_events.mask.numpy()
    rows = np.concatenate([of_target.numpy(), of_events.values.numpy()[inside]]).astype(np.float64)
    found = np.concatenate([ids[target].numpy(), ids[history].numpy()[inside]]).astype(np.int64)
    distinct, place = np.unique(found, return_inverse=True)
    sums = tf.math.unsorted_segment_sum(tf.constant(rows), tf.constant(place), len(distinct)).numpy()
    return distinct, sums


def _tensors(embedded: Embedded) -> list[tf.Tensor]:
    return [*(group.values for group in embedded.groups), *(each.values for each in embedded.sequences.values())]


def _with(embedded: Embedded, tensors: Sequence[tf.Tensor]) -> Embedded:
    """The same with other values, in the order of `_tensors`."""
    groups = [Group(group.names, values) for group, values in zip(embedded.groups, tensors, strict=False)]
    rest = tensors[len(groups) :]
    sequences = {
        name: Padded(values, old.mask) for (name, old), values in zip(embedded.sequences.items(), rest, strict=True)
    }
    return Embedded(embedded.order, groups, sequences)


def _copy(embedded: Embedded) -> Embedded:
    return _with(embedded, [tf.identity(values) for values in _tensors(embedded)])
