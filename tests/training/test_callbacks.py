"""Validation, early stopping, the look at the loss, and what of them survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.errors import TrainingError
from recsys.metrics import effective_rank
from recsys.models.base import EmbeddingModel
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.training import Checkpoints, TrainingConfig, fit
from recsys.training.callbacks import EarlyStopping, FiniteLoss, ProgressBar, Resumable, Validation
from recsys.training.config import EarlyStoppingConfig
from recsys.training.loop import Position
from recsys.training.optimizers import make_dense_optimizer
from recsys.training.rank import VectorRank
from tests.worlds import EMBEDDINGS, write_world

MODEL = TwoTowerConfig.model_validate({"kind": "two_tower", "query": {"output_dim": 8}, "item": {"output_dim": 8}})


class Training:
    """A run on the small world; `Training(...)` again on the same folder is the next process."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.examples = Examples(prepared, "train", 64, seed=1)
        embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS)
        self.model: EmbeddingModel = make_model(MODEL, embeddings, prepared.info.features, Catalogue.of(prepared), 1)
        config = TrainingConfig(batch_size=64)
        self.model.compile(TableOptimizers.of(embeddings), make_dense_optimizer(config.dense_optimizer), 64)
        self.model.build_from(self.examples.sample())
        self.checkpoints = Checkpoints(folder, self.model)

    def fit(self, epochs: int, *callbacks: keras.callbacks.Callback) -> Position:
        config = TrainingConfig(batch_size=64, epochs=epochs, steps_per_call=2)
        return fit(self.model, self.examples, config, self.checkpoints, tf.distribute.get_strategy(), callbacks)

    def stopping(self, patience: int) -> EarlyStopping:
        return EarlyStopping(EarlyStoppingConfig(patience=patience), "m", self.checkpoints.save_best)

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.model.trainable_variables]


class Memory(keras.callbacks.Callback):
    """The weights at the end of each epoch."""

    def __init__(self, weights: Callable[[], list[np.ndarray]]) -> None:
        super().__init__()
        self.weights, self.epochs = weights, [[np.empty(0)]]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(self.weights())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared", users=32, per_user=8))


@pytest.fixture
def training(prepared: Prepared, tmp_path: Path) -> Callable[[], Training]:
    return lambda: Training(prepared, tmp_path / "checkpoints")


def scripted(values: Sequence[float], every: int = 1) -> Validation:
    script: Iterator[float] = iter(values)
    return Validation(lambda: {"m": next(script)}, every)


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "best"),
    [
        ([0.3, 0.5, 0.4, 0.5, 0.1], 2, 4, 2),  # an equal value is no new best
        ([0.3, 0.2, 0.4, 0.1, 0.1, 0.9], 2, 5, 3),  # a new best starts the count again
        ([0.3, 0.2, 0.9], 1, 2, 1),
        ([0.1, 0.2, 0.3], 1, 3, 3),  # as long as it rises, to the end
        ([-0.5, -0.1, -0.2], 3, 3, 2),
    ],
)
def test_early_stopping_waits_for_a_new_best(values: list[float], patience: int, epochs: int, best: int) -> None:
    saved: list[str] = []
    stopping = EarlyStopping(EarlyStoppingConfig(patience=patience), "m", saved.append)
    stopping.set_model(keras.Model())
    ran = 0
    for epoch, value in enumerate(values):
        stopping.on_epoch_end(epoch, {"loss": 1.0, "val_m": value, "val_other": -value})
        ran = epoch + 1
        if stopping.model.stop_training:
            break
    assert ran == epochs
    assert (stopping.state["best"], stopping.state["name"], saved[-1]) == (values[best - 1], *[f"best-{best}"] * 2)


def test_the_best_weights_come_back(training: Callable[[], Training]) -> None:
    run = training()
    memory = Memory(run.weights)
    position = run.fit(6, scripted([0.3, 0.5, 0.4, 0.5]), run.stopping(2), memory)
    assert (position.epoch, position.finished) == (4, True)
    assert [logs["val_m"] for logs in position.history] == [0.3, 0.5, 0.4, 0.5]
    assert same(run.weights(), memory.epochs[4])
    run.checkpoints.restore_best(position.callbacks["EarlyStopping"]["name"])
    assert same(run.weights(), memory.epochs[2])
    assert not same(run.weights(), memory.epochs[4])


def test_only_the_best_and_the_last_stay_on_disk(training: Callable[[], Training], tmp_path: Path) -> None:
    run = training()
    run.fit(4, scripted([0.1, 0.4, 0.6, 0.5]), run.stopping(3))
    kept = {path.name.split(".")[0] for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"checkpoint", "ckpt-4", "best-3"}


def test_validation_every_n_epochs(training: Callable[[], Training]) -> None:
    run = training()
    position = run.fit(5, scripted([0.9, 0.1], every=2), run.stopping(1))
    assert ["val_m" in logs for logs in position.history] == [False, True, False, True]
    assert position.callbacks["EarlyStopping"]["name"] == "best-2"
    assert position.finished, "the second validation is no best, and patience is 1"


def test_what_callbacks_remember_survives(training: Callable[[], Training]) -> None:
    """One validation without a best before the cut, one after it: together they are the patience of two."""

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    first = training()
    with pytest.raises(KeyboardInterrupt):
        first.fit(9, scripted([0.8, 0.5]), first.stopping(2), PowerCut())
    second = training()
    stopping = second.stopping(2)
    assert isinstance(stopping, Resumable)
    position = second.fit(9, scripted([0.6, 0.9]), stopping)
    assert (position.epoch, position.finished) == (3, True)
    assert stopping.state == {"best": 0.8, "name": "best-1", "waited": 2}
    assert [logs["val_m"] for logs in position.history] == [0.8, 0.5, 0.6]


def test_a_callback_that_is_new_to_a_resumed_run_starts_afresh(training: Callable[[], Training]) -> None:
    first = training()
    first.checkpoints.save()
    second = training()
    position = second.fit(1, scripted([0.5]), second.stopping(2))
    assert position.callbacks["EarlyStopping"] == {"best": 0.5, "name": "best-1", "waited": 0}


def test_a_finished_training_is_left_alone_and_says_so(
    training: Callable[[], Training], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = training()
    done = first.fit(2, ProgressBar(Console(), "m"))
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["epoch", "1"], ["epoch", "2"]]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    second = training()
    assert second.fit(2, ProgressBar(Console(), "m")) == done
    assert capsys.readouterr().out == "training was finished before; nothing to do\n"
    assert same(second.weights(), first.weights())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == files


def test_a_loss_that_is_not_finite_stops_and_spares_the_checkpoint(training: Callable[[], Training]) -> None:
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                kernel = next(v for v in self.model.trainable_variables if "kernel" in v.name)
                kernel.assign(kernel * float("nan"))

    run = training()
    memory = Memory(run.weights)
    with pytest.raises(TrainingError) as caught:
        run.fit(3, FiniteLoss(), memory, Poison())
    (problem,) = caught.value.problems
    # Two steps a call: the first call of the second epoch shows it.
    assert problem.place == f"training step {run.examples.steps_per_epoch + min(2, run.examples.steps_per_epoch)}"
    assert problem.found.startswith("the loss is nan and ")
    assert "hold NaN or infinite values" in problem.found
    assert "lower the learning rates" in problem.cure
    later = training()
    assert later.checkpoints.restore()
    assert (later.checkpoints.position.epoch, later.checkpoints.position.step) == (1, 0)
    assert same(later.weights(), memory.epochs[1])


def test_every_loss_that_is_not_finite_is_seen(training: Callable[[], Training]) -> None:
    watch = FiniteLoss()
    watch.set_model(training().model)
    watch.on_train_batch_end(0, {"loss": 3.0})
    for loss in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(TrainingError, match=r"training step 0: the loss is -?(nan|inf); expected a finite loss"):
            watch.on_train_batch_end(0, {"loss": loss})


class StopInTheSecondEpoch(keras.callbacks.Callback):
    """A user's own callback."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = epoch == 1


def test_early_stopping_does_not_revoke_anothers_stop(training: Callable[[], Training]) -> None:
    """In the second epoch nothing is better, patience is left, and another callback, which stands before, stops."""
    run, values = training(), iter([0.5, 0.4, 0.3, 0.2])
    position = run.fit(4, Validation(lambda: {"m": next(values)}), StopInTheSecondEpoch(), run.stopping(3))
    assert (position.epoch, position.finished) == (2, True)


def test_the_rank_of_both_towers_vectors_is_logged(prepared: Prepared, training: Callable[[], Training]) -> None:
    """Of all items; a model whose items are all the same has 1."""
    model = training().model
    assert isinstance(model, TwoTower)
    callback = VectorRank(prepared)
    callback.set_model(model)
    logs: dict[str, float] = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs["rank_item"] == pytest.approx(effective_rank([model.item_vectors(prepared.item_features)]))
    assert 1 < logs["rank_query"] <= 8
    for variable in model.dense_variables():
        if "item_tower" in variable.name and "kernel" in variable.name:
            variable.assign(tf.zeros_like(variable))
        if "item_tower" in variable.name and "bias" in variable.name:
            variable.assign(tf.ones_like(variable))
    callback.on_epoch_end(0, logs)
    assert logs["rank_item"] == pytest.approx(1.0, abs=0.01)
