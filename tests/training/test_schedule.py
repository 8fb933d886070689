"""`training.schedule`: what every learning rate is at every step, by hand, by Keras' own schedule and in whole runs."""

from __future__ import annotations

import numpy as np
import pytest

from recsys import Experiment
from recsys._compat import keras, tf
from recsys.embeddings.optimizers import make_table_optimizer
from recsys.embeddings.optimizers.config import AdagradConfig as TableAdagradConfig
from recsys.embeddings.optimizers.config import LazyAdamConfig, RowwiseAdagradConfig
from recsys.errors import ConfigError
from recsys.training.config import AdagradConfig, AdamConfig, ScheduleConfig
from recsys.training.optimizers import make_dense_optimizer
from recsys.training.schedule import Schedule, learning_rates
from tests.trained import Trained

SHORT = (
    "name=scheduled",
    "training.epochs=3",
    "training.early_stopping=null",
    "training.tensorboard=false",
    "training.steps_per_call=1",
    "training.checkpoint_every_steps=2",
    "training.schedule={decay: linear, warmup: 0.1}",
    "training.dense_optimizer={kind: adam, learning_rate: 0.002}",
)


def schedule(rate: float, steps: int, config: ScheduleConfig) -> Schedule:
    found = learning_rates(config, steps)(rate)
    assert isinstance(found, Schedule)
    return found


def at(moving: Schedule, steps: int) -> list[float]:
    return [float(moving(tf.constant(step, tf.int64))) for step in range(steps)]


def test_by_hand() -> None:
    falling = at(schedule(2.0, 4, ScheduleConfig(decay="linear")), 6)
    assert falling == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0, 0.0]), "a step beyond the last moves nothing"
    wave = at(schedule(1.0, 4, ScheduleConfig(decay="cosine", end=0.2)), 5)
    assert wave == pytest.approx([1.0, 0.2 + 0.8 * (2 + np.sqrt(2)) / 4, 0.6, 0.2 + 0.8 * (2 - np.sqrt(2)) / 4, 0.2])
    risen = at(schedule(1.0, 10, ScheduleConfig(decay="linear", warmup=0.4, end=0.5)), 11)
    assert risen == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, *(1 - 0.5 * step / 6 for step in range(1, 7))])


def test_cosine_is_that_of_keras() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(0.01, 50, alpha=0.1)
    ours = at(schedule(0.01, 50, ScheduleConfig(end=0.1)), 60)
    assert ours == pytest.approx([float(theirs(step)) for step in range(60)], rel=1e-5)


def test_without_a_schedule_rates_are_constant() -> None:
    assert learning_rates(None, 10)(0.3) == 0.3


@pytest.mark.parametrize(
    "config",
    [
        LazyAdamConfig(kind="lazy_adam", learning_rate=1.0),
        TableAdagradConfig(kind="adagrad", learning_rate=1.0),
        RowwiseAdagradConfig(kind="rowwise_adagrad", learning_rate=1.0),
        AdamConfig(learning_rate=1.0),
        AdagradConfig(kind="adagrad", learning_rate=1.0),
    ],
)
def test_every_optimizer_moves_by_it_and_tells_it_to_keras(config: AdamConfig | AdagradConfig | LazyAdamConfig) -> None:
    rates = learning_rates(ScheduleConfig(decay="linear"), 4)
    dense = isinstance(config, AdamConfig | AdagradConfig)
    optimizer = make_dense_optimizer(config, rates) if dense else make_table_optimizer(config, rates)
    variable = tf.Variable(tf.zeros((2, 3)))
    optimizer.build([variable])
    places = []
    for _ in range(6):
        rows = tf.IndexedSlices(tf.ones((1, 3)), tf.constant([0]), tf.constant([2, 3]))
        optimizer.apply_gradients([(tf.convert_to_tensor(rows) if dense else rows, variable)])
        places.append(float(variable[0, 0]))
    moved = -np.diff([0.0, *places])
    assert (moved[:4] > 0).all()
    assert np.allclose(moved[4:], 0.0), "all four steps are done"
    again = type(optimizer).from_config(optimizer.get_config())
    assert at(again._learning_rate, 5) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def weights(run: Experiment) -> list[np.ndarray]:
    variables = [*run.model.variables, *run.model.table_optimizers.variables, *run.model.optimizer.variables]
    return [variable.numpy() for variable in variables]


class KilledError(Exception):
    """Stands for a kill."""


class Watch(keras.callbacks.Callback):
    """The rates of each epoch's last step; dies in the middle of the second epoch, if it is to."""

    def __init__(self, dies: bool = False) -> None:
        super().__init__()
        self.dies = dies
        self.seen: list[list[float]] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        optimizers = [self.model.optimizer, *self.model.table_optimizers.optimizers.values()]
        self.seen.append([float(optimizer.learning_rate) for optimizer in optimizers])

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if self.dies and len(self.seen) == 1 and batch >= 3:
            raise KilledError


def test_all_rates_of_a_run_fall_to_the_end_and_a_killed_one_goes_on_alike(trained_copy: Trained) -> None:
    whole, watch = Experiment.from_yaml("small.yaml", SHORT), Watch()
    whole.add_callback(watch)
    whole.train()
    highest = {0.002, *(whole.config.embeddings.optimizer_of(name).learning_rate for name in ("item", "user"))}
    assert len(watch.seen) == 3
    steps = int(whole.model.global_step.numpy())
    for epoch, rates in enumerate(watch.seen, start=1):
        left = (1 - (epoch * steps / 3 - 1) / steps) / 0.9
        assert sorted(set(rates)) == pytest.approx(sorted(rate * left for rate in highest), rel=1e-3, abs=1e-9)
    killed = Experiment.from_yaml("small.yaml", [*SHORT, "name=killed"])
    killed.add_callback(Watch(dies=True))
    with pytest.raises(KilledError):
        killed.train()
    again = Experiment.from_yaml("runs/killed")
    again.train()
    assert all(np.array_equal(one, other) for one, other in zip(weights(whole), weights(again), strict=True))
    constant = Experiment.from_yaml("small.yaml", [*SHORT, "name=constant", "training.schedule=null"])
    constant.train()
    assert not np.array_equal(weights(whole)[0], weights(constant)[0])


@pytest.mark.parametrize("kind", ["coupled", "decoupled"])
def test_decay_that_is_caught_up_with_needs_a_constant_rate(trained_copy: Trained, kind: str) -> None:
    decay = f"embeddings.tables.item.optimizer={{kind: lazy_adam, decay: {{kind: {kind}, rate: 0.1}}}}"
    with pytest.raises(ConfigError, match=r"training\.schedule.*: the decay of item makes up for steps"):
        Experiment.from_yaml("small.yaml", [*SHORT, decay])
    decay = "embeddings.tables.item.optimizer={kind: lazy_adam, decay: {kind: mini_batch_aware, rate: 0.1}}"
    Experiment.from_yaml("small.yaml", [*SHORT, decay])
