"""Hard negatives from middle ranks, and a run with losses that remember something, which resumes to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.optimizers import TableOptimizers
from recsys.errors import ConfigError
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.objectives.config import MinedConfig
from recsys.ragged import Ragged
from recsys.training import Checkpoints, TrainingConfig, fit, make_strategy
from recsys.training.mining import Mining, hard_negatives, newest_queries
from recsys.training.optimizers import make_dense_optimizer
from tests.training.trainee import EMBEDDINGS, weights_digest
from tests.worlds import write_world

MINED = MinedConfig.model_validate({"ranks": [3, 10], "kept": 4, "count": 2})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared"))


def test_they_come_from_the_middle_of_a_ranking_without_the_users_own() -> None:
    """Items on a line, so that query 0 ranks them 19, 18, ... and query 1 ranks them 0, 1, ..."""
    items = np.arange(20, dtype=np.float32)[:, np.newaxis]
    queries = np.array([[1.0], [-1.0]], np.float32)
    positives = Ragged.from_lists([[18, 12], []])
    found = np.stack([hard_negatives(queries, items, positives, MINED, np.random.default_rng(s)) for s in range(40)])
    for row, ranks in enumerate(([16, 15, 14, 13, 11, 10, 9, 8], [2, 3, 4, 5, 6, 7, 8, 9])):
        assert set(found[:, row].ravel()) == set(ranks)
        assert all(len(set(kept)) == 4 for kept in found[:, row])
    again = hard_negatives(queries, items, positives, MINED, np.random.default_rng(0))
    np.testing.assert_array_equal(again, found[0])


def test_too_few_ranks_leave_places_empty() -> None:
    items = np.arange(5, dtype=np.float32)[:, np.newaxis]
    found = hard_negatives(items[:1] + 1, items, Ragged.from_lists([[0]]), MINED, np.random.default_rng(0))
    assert sorted(found[0]) == [-1, -1, 1, 2]


def test_queries_are_those_of_the_newest_training_examples(world: Prepared) -> None:
    users, query = newest_queries(world)
    examples = world.examples("train", ["user_index", "time", "history_stop", "device"]).to_pandas()
    newest = examples.groupby("user_index")["time"].max()
    np.testing.assert_array_equal(users, newest.index)
    last = examples[examples["time"] == newest[examples["user_index"]].to_numpy()]
    assert set(zip(users, query["device"], strict=True)) <= set(zip(last["user_index"], last["device"], strict=True))
    stop = last.groupby("user_index")["history_stop"].max().to_numpy()
    expected = world.query_features(users, stop, {}, newest.to_numpy())
    assert query.keys() == {*expected, "device"}
    for name, column in expected.items():
        np.testing.assert_array_equal(query[name], column)


def test_a_catalogue_without_such_ranks_is_refused(world: Prepared) -> None:
    with pytest.raises(ConfigError, match=r"begin at 100, and 32 items are kept .* but the catalogue has 30"):
        Mining(MinedConfig(), world, 0)


class Killed(keras.callbacks.Callback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.global_step.numpy()) >= self._step:
            raise KeyboardInterrupt


LOSS = {
    "log_q": {"kind": "streaming", "rows": 64},
    "uniform_negatives": 8,
    "mined": MINED.model_dump(),
}


def trained(world: Prepared, run: Path, killed_at: int | None = None) -> tuple[str, list[dict[str, float]], TwoTower]:
    """Digest of all weights and state, the history, and the model."""
    keras.backend.clear_session()
    config = TrainingConfig(batch_size=32, epochs=3, steps_per_call=2, checkpoint_every_steps=4, early_stopping=None)
    tower = {"hidden": [16], "output_dim": 8, "dropout": 0.2}
    model = make_model(
        TwoTowerConfig.model_validate({"kind": "two_tower", "query": tower, "item": tower, "loss": LOSS}),
        EMBEDDINGS,
        world.info.features,
        Catalogue.of(world),
        seed=7,
    )
    assert isinstance(model, TwoTower)
    examples = Examples(world, "train", 32, seed=7)
    model.compile(TableOptimizers.of(EMBEDDINGS), make_dense_optimizer(config.dense_optimizer), 32)
    model.build_from(examples.sample())
    checkpoints = Checkpoints(run / "checkpoints", model)
    callbacks: list[keras.callbacks.Callback] = [Mining(MINED, world, 7)]
    if killed_at is not None:
        callbacks.append(Killed(killed_at))
    position = fit(model, examples, config, checkpoints, make_strategy(config), callbacks)
    return weights_digest(model), position.history, model


def test_losses_that_remember_resume_to_the_same_bits(world: Prepared, tmp_path: Path) -> None:
    """Killed inside the second epoch, whose hard negatives are those of the end of the first; the estimator, too, goes
    on from the checkpoint.
    """
    digest, history, model = trained(world, tmp_path / "whole")
    steps = len(history) and int(model.global_step.numpy()) // 3
    assert steps >= 7
    mined = model.objective.listing.mined.items.numpy()
    assert (mined >= 0).all()
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(world, run, killed_at=steps + 5)
    assert trained(world, run)[:2] == (digest, history)
    interval = model.objective.listing.frequencies.interval.numpy()
    assert np.mean(interval != 100.0) > 0.2
    # Nobody needs the table after the training, and it has a row for each user: it is no part of the best weights.
    Checkpoints(tmp_path / "other", model).save_best("best-1")
    saved = [name for name, _ in tf.train.list_variables(str(tmp_path / "other" / "best-1"))]
    assert saved
    assert not [name for name in saved if "objective" in name or "mined" in name]
