"""Gradual magnitude pruning: DeepLight's schedule, in a training, down to a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.plan import EmbeddingPlan, Origin
from recsys.embeddings.tables import Vocabularies
from recsys.models.base import EmbeddingModel
from recsys.models.build import make_model
from recsys.search.fields import Field, fields_of, full_rows, set_rows
from recsys.search.pruning import GradualPruning, sparsity
from recsys.training import Checkpoints, TrainingConfig, fit, make_strategy
from recsys.training.optimizers import make_dense_optimizer
from tests.training.trainee import model_config
from tests.worlds import EMBEDDINGS, write_world

CONFIG = EmbeddingsConfig.model_validate(EMBEDDINGS)
TRAINING = TrainingConfig(batch_size=32, epochs=2, steps_per_call=3, checkpoint_every_steps=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared"))


def vocabularies(prepared: Prepared) -> Vocabularies:
    return Vocabularies(prepared.frequencies, prepared.vocabulary)


def fields(prepared: Prepared) -> list[Field]:
    return fields_of(CONFIG, prepared.info.features, vocabularies(prepared))


def model_of(prepared: Prepared, config: EmbeddingsConfig = CONFIG) -> EmbeddingModel:
    known = vocabularies(prepared)
    model = make_model(model_config("two_tower", 0.0), config, prepared.info.features, Catalogue.of(prepared), 7, known)
    dense = make_dense_optimizer(TRAINING.dense_optimizer)
    model.compile(TableOptimizers.of(config), dense, TRAINING.batch_size)
    model.build_from(Examples(prepared, "train", 32, seed=7).sample())
    return model


def train(prepared: Prepared, folder: Path, *callbacks: keras.callbacks.Callback) -> EmbeddingModel:
    model = model_of(prepared)
    examples = Examples(prepared, "train", TRAINING.batch_size, seed=7)
    checkpoints = Checkpoints(folder, model, True)
    fit(model, examples, TRAINING, checkpoints, make_strategy(TRAINING), callbacks)
    return model


def test_the_schedule() -> None:
    """S (1 - D^(n / U)): a hundredth of S after U steps, .63 S after 100 U, S in the end."""
    assert sparsity(0, 0.8) == 0.0
    assert sparsity(100, 0.8) == pytest.approx(0.008)
    assert sparsity(10_000, 0.8) == pytest.approx(0.8 * (1 - 0.99**100))
    assert sparsity(10**6, 0.8) == pytest.approx(0.8)
    assert sparsity(20, 0.8, damping=0.5, unit=10) == pytest.approx(0.6)


def test_fields_are_the_full_tables(prepared: Prepared) -> None:
    """Not the hashed one; a history's ids are its item's. Rows go there and back."""
    found = fields(prepared)
    assert [(each.table, each.owner, each.ids, each.dim) for each in found] == [
        ("ids", "movie_id", 32, 8),
        ("user", "user_id", 42, 8),
    ]
    assert found[0].counts[:4].tolist() == [0, 0, 5, 5]
    model = model_of(prepared)
    rows = full_rows(found, model.embeddings)
    np.testing.assert_array_equal(rows[1], model.embeddings.tables["user"].store.embeddings)  # type: ignore[attr-defined]
    set_rows(found, model.embeddings, [rows[0] + 1, rows[1] + 2])
    again = full_rows(found, model.embeddings)
    for number in (0, 1):
        np.testing.assert_array_equal(again[number], rows[number] + (number + 1))


class Watch(keras.callbacks.Callback):
    """Shares of zeros after each call of the graph, and the steps."""

    def __init__(self, found: list[Field]) -> None:
        super().__init__()
        self._fields = found
        self.seen: list[tuple[int, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        rows = np.concatenate([own.ravel() for own in full_rows(self._fields, self.model.embeddings)])
        self.seen.append((int(self.model.global_step.numpy()), float((rows == 0).mean())))


def test_it_prunes_by_the_schedule_and_ends_in_a_plan(prepared: Prepared, tmp_path: Path) -> None:
    own = fields(prepared)
    budget = 1_200  # of 2,368
    pruning = GradualPruning(own, budget, warm_up=3, every=5, damping=0.5, unit=4)
    total = (32 + 42) * 8
    assert pruning.final == pytest.approx(1 - (budget - 20 * (2 + 3)) // 4 / total)
    watch = Watch(own)
    model = train(prepared, tmp_path / "c", pruning, watch)
    steps = dict(watch.seen)
    assert list(steps)[:4] == [3, 6, 9, 12]
    assert steps[3] == 0.0, "too early"
    # After steps 5 and 10 have gone by: at 6 and at 12. Between, rows that are read grow again.
    assert steps[6] == pytest.approx(sparsity(3, pruning.final, 0.5, 4), abs=1 / total)
    assert steps[12] == pytest.approx(sparsity(9, pruning.final, 0.5, 4), abs=1 / total)
    assert steps[9] < steps[6] < steps[12]
    rows = full_rows(own, model.embeddings)
    end = float(np.mean(np.concatenate([each.ravel() for each in rows]) == 0))
    assert end == pytest.approx(sparsity(max(steps) - 3, pruning.final, 0.5, 4), abs=1 / total), "at an epoch's end"

    plan = pruning.plan(Origin(method="", run="world", seed=7))
    assert (plan.origin.method, plan.origin.budget, plan.origin.run) == ("gradual_pruning", budget, "world")
    assert budget - 4 < plan.bytes() <= budget
    plan.save(tmp_path / "plan")
    planned = model_of(prepared, CONFIG.model_copy(update={"plan": str(tmp_path / "plan")}))
    for each, values in zip(own, rows, strict=True):
        mask = EmbeddingPlan.load(tmp_path / "plan").tables[each.table].vocabularies[each.owner].mask(8)
        store = planned.embeddings.tables[each.table].store
        np.testing.assert_array_equal(store.lookup(tf.range(each.ids)), values * mask)
        assert np.abs(values[~mask]).max() <= np.abs(values[mask]).min()


def test_without_a_need_it_changes_nothing(prepared: Prepared, tmp_path: Path) -> None:
    own = fields(prepared)
    plain = full_rows(own, train(prepared, tmp_path / "a").embeddings)
    pruned = train(prepared, tmp_path / "b", GradualPruning(own, 10**6, every=1))
    for one, other in zip(plain, full_rows(own, pruned.embeddings), strict=True):
        np.testing.assert_array_equal(one, other)
