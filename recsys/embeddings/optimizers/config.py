"""Configs of the tables' optimizers, and of the decay of the rows that they touch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from recsys.config.base import Config

Beta = Annotated[float, Field(ge=0, lt=1)]


class DecoupledDecay(Config):
    """Every step multiplies a row by (1 - learning_rate * rate), as AdamW does; a row catches up on the steps that it
    slept through when it is next touched, and all rows do at a flush. Exact for a constant learning rate.
    """

    kind: Literal["decoupled"]
    rate: PositiveFloat


class CoupledDecay(Config):
    """rate * row is added to every step's gradient, as torch's `Adam(weight_decay=)` does it (L2 regularisation).

    Steps that a row slept through are made up for when it is next touched, by an approximation that costs the same
    however many they are.
    """

    kind: Literal["coupled"]
    rate: PositiveFloat


class MiniBatchAwareDecay(Config):
    """rate * row / n is added to a step's gradient of each row that the batch reads, once, n being the training rows
    that read it; other rows stay as they are (Zhou et al., "Deep Interest Network", KDD 2018, eq. 7).

    What is read n times an epoch decays as much as what is read once; the cost is that of the batch. The gradient is
    that of rate / 2 * Σ |row|² / n over the distinct rows of the batch, and is not clipped. Rows that no training row
    reads have n = 1.
    """

    kind: Literal["mini_batch_aware"]
    rate: PositiveFloat = 0.01


class _Optimizer(Config):
    scale_learning_rate: PositiveFloat = 2e-5
    """Of the scales of int8 rows; other precisions have none."""


class LazyAdamConfig(_Optimizer):
    """Adam whose moments move only for the rows looked up in the step."""

    kind: Literal["lazy_adam"]
    learning_rate: PositiveFloat = 1e-3
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: PositiveFloat = 1e-8
    """Added to the square root of the bias-corrected second moment (Kingma & Ba, Algorithm 1; torch's convention)."""
    decay: Annotated[DecoupledDecay | CoupledDecay | MiniBatchAwareDecay, Field(discriminator="kind")] | None = None
    """Shrinks the rows, at the cost of the touched ones; in place of an `embeddings_regularizer`."""


class RowwiseAdagradConfig(_Optimizer):
    """Adagrad with one accumulator per row: the mean squared gradient of the row."""

    kind: Literal["rowwise_adagrad"]
    learning_rate: PositiveFloat = 0.05
    initial_accumulator: Annotated[float, Field(ge=0)] = 0.0
    epsilon: PositiveFloat = 1e-8
    """Added to the square root of the accumulator."""
    decay: Annotated[DecoupledDecay | MiniBatchAwareDecay, Field(discriminator="kind")] | None = None
    """Shrinks the rows, at the cost of the touched ones. Coupled decay has no form that skips steps here."""


class AdagradConfig(_Optimizer):
    """Adagrad with an accumulator per weight."""

    kind: Literal["adagrad"]
    learning_rate: PositiveFloat = 0.05
    initial_accumulator: Annotated[float, Field(ge=0)] = 0.1
    epsilon: PositiveFloat = 1e-8
    """Added to the square root of the accumulator."""
    decay: Annotated[DecoupledDecay | MiniBatchAwareDecay, Field(discriminator="kind")] | None = None
    """Shrinks the rows, at the cost of the touched ones. Coupled decay has no form that skips steps here."""


TableOptimizerConfig = Annotated[LazyAdamConfig | RowwiseAdagradConfig | AdagradConfig, Field(discriminator="kind")]
