"""DNIS' search on an experiment: from the trained full model, alternate between rows and selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from recsys._compat import tf
from recsys.data.reader import Examples
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.plan import EmbeddingPlan
from recsys.evaluation import evaluate_model
from recsys.experiment import Experiment
from recsys.models.base import EmbeddingModel
from recsys.models.config import TwoTowerConfig
from recsys.search.config import DNISSearch
from recsys.search.dnis import copy_weights, plan_for, search_selection

FOLDER = "dnis"


class SelectionSearch:
    """A selection in place of the searched tables, which begin as those of the full model.

    Args:
        workshop: the experiment.
        method: of the search.
        full: the full model's experiment, trained.
        report: is told what is being done.
    """

    def __init__(
        self, workshop: Workshop, method: DNISSearch, full: Experiment, report: Callable[[str], object]
    ) -> None:
        self._workshop, self._method, self._full, self._report = workshop, method, full, report

    def plan(self, budget: int) -> EmbeddingPlan:
        """The folded numbers of largest magnitude within a budget, with their values.

        Raises:
            ConfigError: the budget is smaller than the bits that say which they are.
        """
        origin = self._workshop.origin("dnis").model_copy(update={"budget": budget})
        return plan_for(self._searched, self._workshop.fields, budget, origin)

    @cached_property
    def _searched(self) -> EmbeddingModel:
        """The model as it was after the epoch that validates best."""
        workshop, config = self._workshop, self._method.selection
        keys = ("dim", "initializer", "optimizer", "served_precision")
        tables = {
            name: {"method": "dnis", "shares": self._method.shares, **{key: table[key] for key in keys}}
            for name, table in workshop.tables.items()
        }
        with workshop.timed(FOLDER):
            experiment = workshop.open(workshop.with_tables("dnis-selection", tables, schedule=False))
            model = experiment.model
            copy_weights(self._full.trained_model().variables, model)
            state = _State(model, workshop.folder / FOLDER)
            train, valid = self._examples((config.validation, 1.0)), self._examples((0.0, config.validation))
            epochs = search_selection(model, train, valid, config, state.epoch)
            while state.epoch - state.best_epoch < config.patience and (done := next(epochs, None)) is not None:
                state.epoch_is_done(done, self._quality(experiment))
                self._report(f"dnis: epoch {done} of at most {config.epochs}")
            state.restore_best()
        return model

    def _quality(self, experiment: Experiment) -> float:
        """On the validation part, of which no step of the search has seen anything."""
        config = experiment.config.evaluation
        found = evaluate_model(experiment.model, experiment.prepared, "valid", config, validation=True)
        return found.metrics["model"][experiment.monitor]

    def _examples(self, between: tuple[float, float]) -> Examples:
        """Training examples; those that move the selection are no others' than a random share of them."""
        workshop = self._workshop
        config, positives_only = workshop.config, isinstance(workshop.config.model, TwoTowerConfig)
        prepared = workshop.experiment.prepared
        return Examples(prepared, "train", config.training.batch_size, config.seed, positives_only, between)


class _State:
    """How far a search is, and what it was at its best: all that a killed one needs, in two checkpoints."""

    def __init__(self, model: EmbeddingModel, folder: Path) -> None:
        self._epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._best_epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._best = tf.Variable(-math.inf, trainable=False, dtype=tf.float64)
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            tables=model.table_optimizers,
            epochs=self._epoch,
            best_epoch=self._best_epoch,
            best=self._best,
        )
        self._latest = tf.train.CheckpointManager(self._checkpoint, str(folder / "checkpoint"), 1)
        self._at_best = tf.train.CheckpointManager(self._checkpoint, str(folder / "best"), 1)
        self._restore(self._latest)

    @property
    def epoch(self) -> int:
        """That are done."""
        return int(self._epoch.numpy())

    @property
    def best_epoch(self) -> int:
        """0 before the first."""
        return int(self._best_epoch.numpy())

    def epoch_is_done(self, epoch: int, quality: float) -> None:
        """Saves it; killed between the two writes, the epoch is gone through again, to the same numbers."""
        self._epoch.assign(epoch)
        if quality > float(self._best.numpy()):
            self._best.assign(quality)
            self._best_epoch.assign(epoch)
            self._at_best.save(checkpoint_number=epoch)
        self._latest.save(checkpoint_number=epoch)

    def restore_best(self) -> None:
        """The best epoch's model."""
        self._restore(self._at_best)

    def _restore(self, manager: tf.train.CheckpointManager) -> None:
        if manager.latest_checkpoint:
            self._checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
