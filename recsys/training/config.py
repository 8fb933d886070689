"""How a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config, default_tag


class AdamConfig(Config):
    """Adam for the dense weights, with the paper's epsilon."""

    kind: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    epsilon: PositiveFloat = 1e-8


class AdagradConfig(Config):
    """Adagrad for the dense weights."""

    kind: Literal["adagrad"]
    learning_rate: PositiveFloat = 0.01


DenseOptimizerConfig = Annotated[AdamConfig | AdagradConfig, Field(discriminator="kind"), default_tag("kind", "adam")]


class ScheduleConfig(Config):
    """How the learning rates of tables and dense weights move over the steps of a training.

    Over the first `warmup` of them they rise in a line from zero; then they fall to the share `end`.
    """

    decay: Literal["cosine", "linear"] = "cosine"
    """`cosine`: along half a wave (Loshchilov & Hutter, "SGDR", ICLR 2017, eq. 5, without restarts)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training's steps, which are those of all `epochs`, whether or not early stopping lets them come."""
    end: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What is left of the learning rates in the end."""


class EarlyStoppingConfig(Config):
    """Stop when the validation metric (`evaluation.monitor`; a ranker's auc) no longer rises; keep the best weights."""

    patience: PositiveInt = 3
    """Validations without a new best before training stops."""
    every_epochs: PositiveInt = 1
    """Epochs between validations."""


class TrainingConfig(Config):
    """Batches, epochs, optimizer, checkpoints, devices."""

    examples: Literal["events", "sequences"] = "events"
    """What a row is. `events`: an event with its history; `sequences`, for a two_tower with `model.query.sequence`: a
    window of a user's history with all the events that it is the history of, each learned from the state at its place.
    """
    batch_size: PositiveInt = 4096
    """Rows in a step over all replicas: examples, or windows of histories."""
    epochs: PositiveInt = 10
    dense_optimizer: DenseOptimizerConfig = AdamConfig()
    """For every weight that is no embedding table (those have `embeddings.optimizer`)."""
    schedule: ScheduleConfig | None = None
    """Of the learning rates, which are constant without one; those of thresholds (`optembed`) and of the scales of int8
    rows always are.
    """
    clip_norm: PositiveFloat | None = None
    """All gradients, of tables and dense weights together, are scaled down to this Euclidean norm at most."""
    warm_start: str | None = None
    """An earlier run's directory: rows of the ids that it knows, by their text, and dense weights are taken over,
    optimizers' state is not. Relative paths start where those of `data.source` do.
    """
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    checkpoint_every_steps: NonNegativeInt = 0
    """Steps between checkpoints inside an epoch; 0 for one at each epoch's end only."""
    steps_per_call: PositiveInt = 20
    """Steps that run in the graph between two looks at the loss."""
    strategy: Literal["default", "mirrored", "multi_worker", "parameter_server"] = "default"
    """`mirrored`: all devices of this machine; `multi_worker`, `parameter_server`: the cluster in TF_CONFIG."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """In which the steps compute. `mixed_bfloat16`: matrix products and what stands between them in bfloat16; weights,
    tables, losses and optimizers stay float32, and so does all that is not training.
    """
    xla: bool = False
    """Have XLA compile a ranker's training between tables and logits; on CPUs no gain (docs/methods/rankers.md)."""
    tensorboard: bool = True
    """Write event files under the run's `logs/`."""

    @property
    def in_cluster(self) -> bool:
        """Whether several processes train together, each with its part in TF_CONFIG."""
        return self.strategy in ("multi_worker", "parameter_server")

    @model_validator(mode="after")
    def _tables_are_whole(self) -> Self:
        if self.warm_start is not None and self.strategy == "parameter_server":
            raise ValueError("warm_start needs whole tables, and parameter servers hold shards; use another strategy")
        return self

    @model_validator(mode="after")
    def _compiles_for_one_device(self) -> Self:
        if self.xla and self.strategy != "default":
            raise ValueError(
                "xla compiles for one device, and layers that sum over replicas cannot be inside; use default"
            )
        return self

    @model_validator(mode="after")
    def _validates_before_the_end(self) -> Self:
        stopping = self.early_stopping
        if stopping is not None and stopping.every_epochs > self.epochs:
            raise ValueError(
                f"early_stopping.every_epochs is {stopping.every_epochs}, but there are {self.epochs} epochs: it would "
                "never validate; lower it, or set early_stopping: null"
            )
        return self
