"""DNIS: which numbers of the rows of each frequency block are worth having, found by gradients.

    min_α L_valid(W*(α), α) + λ |α|₁   with   W*(α) = argmin_W L_train(W, α)

Steps take turns. A batch of the one kind moves the tables, by their own optimizers, and nothing else: dense weights
stand still. A batch of the other kind moves the selection alone:

    g = ∇_α (L_valid + λ |α|₁),   g_s = g_s / (mean_k |g_sk| + 1e-8) for each block s,   α = clip(α - η g, 0, 1)

A block of which the batch reads nothing keeps its selection (its gradient would be λ alone, scaled up to a full step).
At the end the selection is folded into the rows, and the numbers of largest magnitude are what a budget keeps.

Reference: Cheng, Shen, Huang, "Differentiable Neural Input Search for Recommender Systems", 2020 (arXiv:2006.04466),
section 3 and Algorithm 1; the second order as in Liu, Simonyan, Yang, "DARTS", ICLR 2019, eqs. 7 and 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.reader import Examples
from recsys.embeddings.addressing import Offsets
from recsys.embeddings.dnis import SelectedRows
from recsys.embeddings.optimizers.gradients import deduplicate
from recsys.embeddings.plan import EmbeddingPlan, Origin
from recsys.models.base import Batch, EmbeddingModel
from recsys.search.config import SelectionConfig
from recsys.search.controls import magnitude
from recsys.search.fields import Field

TINY = 1e-8
"""Added to a block's mean gradient before it divides."""
NUDGE = 0.01
"""Euclidean length of the step by which the second order's difference is taken (DARTS)."""


class Alternation:
    """The two half steps of DNIS on a model whose tables are `method: dnis`.

    Args:
        model: compiled and built, usually warm.
        config: the selection's learning rate, penalty, and whether it looks ahead.
    """

    def __init__(self, model: EmbeddingModel, config: SelectionConfig) -> None:
        self._model, self._config = model, config
        self.selections = selections(model)
        self.train = tf.function(self._train, reduce_retracing=True)
        """From a batch: one step of the tables."""
        self.select = tf.function(self._select, reduce_retracing=True)
        """From a training batch, which only the second order reads, and another: one step of the selection."""

    def _train(self, batch: Batch) -> None:
        model = self._model
        trained = model.embeddings.trained()
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
        model.table_optimizers.apply(tape.gradient(loss, [each.source for each in trained]), trained)
        model.global_step.assign_add(1)

    def _select(self, train: Batch, valid: Batch) -> None:
        config = self._config
        found = self._gradients(valid) if config.unroll is None else self._unrolled(train, valid, config.unroll)
        for selection, gradient in zip(self.selections, found, strict=True):
            is_read = tf.reduce_any(tf.not_equal(gradient, 0.0), 1, keepdims=True)
            step = normalized(gradient + config.penalty * tf.sign(selection))
            moved = tf.clip_by_value(selection - config.learning_rate * step, 0.0, 1.0)
            selection.assign(tf.where(is_read, moved, selection))

    def _gradients(self, batch: Batch) -> list[tf.Tensor]:
        """[S, D] of each selection."""
        return self._gradients_of(batch, [])[0]

    def _gradients_of(self, batch: Batch, rows: Sequence[tf.Variable]) -> tuple[list[tf.Tensor], list[Any]]:
        """[S, D] of each selection; and of the rows."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*self.selections, *rows])
            loss = self._model.compute_loss(batch, training=False)
        found = tape.gradient(loss, [*self.selections, *rows], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        size = len(self.selections)
        return [tf.convert_to_tensor(each) for each in found[:size]], found[size:]

    def _unrolled(self, train: Batch, valid: Batch, rate: float) -> list[tf.Tensor]:
        """∇_α L_valid(W', α) - ξ ∇²_αW L_train(W, α) ∇_W' L_valid(W', α), with W' = W - ξ ∇_W L_train(W, α), and the
        product by a central difference. W is as it was in the end, bit for bit.
        """
        rows = [each.variable for each in self._model.embeddings.trained()]
        _, ahead = self._gradients_of(train, rows)
        with _Moved(rows, ahead, -rate):
            first, pull = self._gradients_of(valid, rows)
        nudge = NUDGE / (tf.linalg.global_norm(pull) + TINY)
        with _Moved(rows, pull, nudge):
            up = self._gradients(train)
        with _Moved(rows, pull, -nudge):
            down = self._gradients(train)
        return [g - rate * (u - d) / (2.0 * nudge) for g, u, d in zip(first, up, down, strict=True)]


def selections(model: EmbeddingModel) -> list[tf.Variable]:
    """[S, D] of each searched table."""
    stores = [table.store for table in model.embeddings.tables.values()]
    return [store.selection for store in stores if isinstance(store, SelectedRows)]


def copy_weights(full: Sequence[tf.Variable], model: EmbeddingModel) -> None:
    """All variables of the full model, the moving means of its layers too: the other has the same, and selections
    beside them.
    """
    added = {id(selection) for selection in selections(model)}
    own = [variable for variable in model.variables if id(variable) not in added]
    for variable, known in zip(own, full, strict=True):
        variable.assign(known)


def normalized(gradient: tf.Tensor) -> tf.Tensor:
    """[S, D] each block's gradient, divided by its mean size."""
    return gradient / (tf.reduce_mean(tf.abs(gradient), 1, keepdims=True) + TINY)


class _Moved:
    """Rows moved along sparse gradients for a while."""

    def __init__(self, rows: Sequence[tf.Variable], gradients: Sequence[Any], rate: Any) -> None:
        slices = [deduplicate(gradient) for gradient in gradients]
        self._moves = [(row, each.indices, rate * each.values) for row, each in zip(rows, slices, strict=True)]

    def __enter__(self) -> None:
        self._before = [tf.gather(rows, indices) for rows, indices, _ in self._moves]
        for (rows, indices, move), before in zip(self._moves, self._before, strict=True):
            rows.scatter_update(tf.IndexedSlices(before + move, indices))

    def __exit__(self, *_: object) -> None:
        for (rows, indices, _), before in zip(self._moves, self._before, strict=True):
            rows.scatter_update(tf.IndexedSlices(before, indices))


def search_selection(
    model: EmbeddingModel, train: Examples, valid: Examples, config: SelectionConfig, epoch: int = 0
) -> Iterator[int]:
    """Alternates for the epochs that are left; the model's state after each is all that a killed search needs.

    Args:
        model: as for `Alternation`.
        train: the examples that move the rows.
        valid: others, which move the selection; they are gone through again and again.
        config: of the search.
        epoch: to go on from.

    Yields:
        The epochs that are done, after each.
    """
    steps = Alternation(model, config)
    for current in range(epoch, config.epochs):
        passes = (valid.batches(current * 1_000_000 + again) for again in count())
        others = chain.from_iterable(passes)
        for batch in train.batches(current):
            steps.train(batch)
            steps.select(batch, next(others))
        model.table_optimizers.flush()
        yield current + 1


def folded_rows(model: EmbeddingModel, fields: Sequence[Field]) -> list[NDArray[np.float32]]:
    """[ids, D] of each field, its rows times their selection."""
    folded: dict[str, NDArray[np.float32]] = {}
    starts: dict[str, Mapping[str, int]] = {}
    for name, table in model.embeddings.tables.items():
        if isinstance(table.store, SelectedRows):
            assert isinstance(table.addressing, Offsets)
            folded[name], starts[name] = table.store.folded(), table.addressing.starts
    return [folded[f.table][starts[f.table][f.owner] :][: f.ids] for f in fields]


def plan_for(model: EmbeddingModel, fields: Sequence[Field], budget: int, origin: Origin) -> EmbeddingPlan:
    """The folded numbers of largest magnitude within a budget, with their values.

    Raises:
        ConfigError: the budget is smaller than the bits that say which numbers are kept.
    """
    plan = magnitude(fields, folded_rows(model, fields), budget, origin)
    return plan.model_copy(update={"origin": plan.origin.model_copy(update={"method": "dnis"})})
