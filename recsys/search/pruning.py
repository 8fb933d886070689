"""Gradual magnitude pruning: training goes on while the smallest numbers are set to zero, more and more of them.

Reference: Deng, Pan, Zhou, Kong, Flores, Lin, "DeepLight: Deep Lightweight Feature Interactions for Accelerating CTR
Predictions in Ad Serving", WSDM 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys._compat import keras
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.plan import EmbeddingPlan, Origin
from recsys.search.controls import largest_magnitudes, magnitude, numbers_within
from recsys.search.fields import Field, full_rows, set_rows


def sparsity(step: int, final: float, damping: float = 0.99, unit: int = 100) -> float:
    """The share of numbers that is pruned n steps after the warm-up: S (1 - D^(n / U)).

    >>> round(sparsity(0, 0.9), 4), round(sparsity(100, 0.9), 4), round(sparsity(46_000, 0.9), 4)
    (0.0, 0.009, 0.8912)
    """
    return final * (1.0 - damping ** (step / unit))


class GradualPruning(keras.callbacks.Callback):
    """Every few steps sets to zero the numbers of smallest magnitude over all fields; they may grow again until the
    next time, as in the authors' code. `plan` then cuts to the budget.

    A pruning looks at all numbers, so it costs as much as the tables are large. It depends on the weights and the
    model's step alone: a training that was killed goes on to the same numbers. With rising sparsity S (1 - D^(n / U))
    a training of n steps ends well below S unless n is many times U: lower `unit` for short ones.

    Args:
        fields: what is pruned, of a model without a plan.
        budget: bytes that the plan is to keep to; S is the share that this prunes.
        warm_up: steps before the first pruning.
        every: steps between prunings; the last one of an epoch is always followed by one.
        damping: D.
        unit: U, in steps.

    Raises:
        ConfigError: the budget is smaller than the bits that say which numbers are kept.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        budget: int,
        *,
        warm_up: int = 0,
        every: int = 10,
        damping: float = 0.99,
        unit: int = 100,
    ) -> None:
        super().__init__()
        self._fields, self._budget = list(fields), budget
        self._numbers = sum(field.ids * field.dim for field in fields)
        self.final = 1.0 - min(numbers_within(fields, budget), self._numbers) / self._numbers
        """S"""
        self._warm_up, self._every, self._damping, self._unit = warm_up, every, damping, unit
        self._last = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Goes on from where the model stands."""
        self._last = self._step()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Prunes if the time has come since the last look."""
        before, self._last = self._last, self._step()
        if self._last // self._every > before // self._every:
            self._prune()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prunes."""
        self._prune()

    def plan(self, origin: Origin) -> EmbeddingPlan:
        """What is left of the present weights within the budget, with their values."""
        plan = magnitude(self._fields, full_rows(self._fields, self._embeddings()), self._budget, origin)
        return plan.model_copy(update={"origin": plan.origin.model_copy(update={"method": "gradual_pruning"})})

    def _prune(self) -> None:
        step = self._last - self._warm_up
        if step <= 0:
            return
        self.model.table_optimizers.flush()
        rows = full_rows(self._fields, self._embeddings())
        count = self._numbers - int(self._numbers * sparsity(step, self.final, self._damping, self._unit))
        kept = largest_magnitudes(rows, count)
        pruned = [np.where(mask, values, np.float32(0)) for mask, values in zip(kept, rows, strict=True)]
        set_rows(self._fields, self._embeddings(), pruned)

    def _step(self) -> int:
        return int(self.model.global_step.numpy())

    def _embeddings(self) -> EmbeddingCollection:
        embeddings: EmbeddingCollection = self.model.embeddings
        return embeddings
