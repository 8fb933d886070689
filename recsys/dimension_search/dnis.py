"""DNIS' search on an experiment: from the trained full model, alternate between rows and selection."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from recsys._compat import tf
from recsys.data.reader import Examples
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.plan import EmbeddingPlan
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
        """The model at the end of the search."""
        workshop, config = self._workshop, self._method.selection
        keys = ("dim", "initializer", "optimizer", "served_precision")
        tables = {
            name: {"method": "dnis", "shares": self._method.shares, **{key: table[key] for key in keys}}
            for name, table in workshop.tables.items()
        }
        with workshop.timed(FOLDER):
            model = workshop.open(workshop.with_tables("dnis-selection", tables)).model
            copy_weights(self._full.trained_model().variables, model)
            epochs = tf.Variable(0, trainable=False, dtype=tf.int64)
            checkpoint = tf.train.Checkpoint(model=model, tables=model.table_optimizers, epochs=epochs)
            manager = tf.train.CheckpointManager(checkpoint, str(workshop.folder / FOLDER / "checkpoint"), 1)
            if manager.latest_checkpoint:
                checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
            train, valid = self._examples((config.validation, 1.0)), self._examples((0.0, config.validation))
            for done in search_selection(model, train, valid, config, int(epochs.numpy())):
                self._report(f"dnis: epoch {done} of {config.epochs}")
                epochs.assign(done)
                manager.save()
        return model

    def _examples(self, between: tuple[float, float]) -> Examples:
        """Training examples; those that move the selection are no others' than a random share of them."""
        workshop = self._workshop
        config, positives_only = workshop.config, isinstance(workshop.config.model, TwoTowerConfig)
        prepared = workshop.experiment.prepared
        return Examples(prepared, "train", config.training.batch_size, config.seed, positives_only, between)
