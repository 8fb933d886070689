"""The training loop: exact under kill and resume.

Keras' own `fit` cannot resume inside an epoch to the same numbers; this loop can, because all that it depends on is
either a function of (seed, epoch, step) or in the checkpoint. It drives ordinary Keras callbacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from recsys._compat import keras, tf
from recsys.data.reader import Examples, Shard
from recsys.data.sequences import Sequences
from recsys.embeddings.mixed_dim import FrequencyBlocks
from recsys.embeddings.planned import PlannedRows
from recsys.models.base import EmbeddingModel
from recsys.training.callbacks import Resumable
from recsys.training.checkpoints import Checkpoints, Position
from recsys.training.config import TrainingConfig

Steps = Callable[[Iterator, int], float]
"""Runs n steps from an iterator and returns the epoch's mean loss so far."""


def fit(
    model: EmbeddingModel,
    examples: Examples | Sequences,
    config: TrainingConfig,
    checkpoints: Checkpoints,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Position:
    """Trains to the end of `config.epochs`, or until a callback stops it, from wherever the latest checkpoint stands.

    Args:
        model: compiled and built under `strategy.scope()`.
        examples: the training part.
        config: batches, epochs, checkpoints.
        checkpoints: of this run; saved at each epoch's end and every `checkpoint_every_steps` steps.
        strategy: where it runs.
        callbacks: Keras callbacks; those with a `state` are resumed.

    Returns:
        The final position, with the history of all epochs.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint does not fit.
    """
    position = checkpoints.position
    resumable = {type(c).__name__: c for c in callbacks if isinstance(c, Resumable)}
    if checkpoints.restore():
        for name in resumable.keys() & position.callbacks.keys():
            resumable[name].state = position.callbacks[name]
    checkpoints.sweep(*_best_names(resumable))
    model.stop_training = position.finished
    listeners = keras.callbacks.CallbackList(
        [*callbacks, _History(position)], model=model, epochs=config.epochs, steps=examples.steps_per_epoch, verbose=0
    )
    run_steps = _steps(model, strategy)
    listeners.on_train_begin()
    try:
        while position.epoch < config.epochs and not model.stop_training:
            logs = _epoch(model, examples, config, checkpoints, strategy, listeners, run_steps)
            model.table_optimizers.flush()  # whoever looks at the weights now finds every row's decay done
            listeners.on_epoch_end(position.epoch, logs)
            position.epoch, position.step = position.epoch + 1, 0
            position.finished = bool(model.stop_training) or position.epoch == config.epochs
            _save(checkpoints, resumable)
            checkpoints.sweep(*_best_names(resumable))
    finally:
        listeners.on_train_end()
    return position


class _History(keras.callbacks.Callback):
    """Stands last, to record what the others add to the logs: Keras hands all callbacks one copy."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self._position = position

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        found = {name: float(value) for name, value in (logs or {}).items()}
        self._position.history.append({name: value for name, value in found.items() if math.isfinite(value)})


def _epoch(
    model: EmbeddingModel,
    examples: Examples | Sequences,
    config: TrainingConfig,
    checkpoints: Checkpoints,
    strategy: tf.distribute.Strategy,
    listeners: keras.callbacks.CallbackList,
    run_steps: Steps,
) -> dict[str, float]:
    """The rest of the present epoch; its logs."""
    position = checkpoints.position
    resumable = {type(c).__name__: c for c in listeners.callbacks if isinstance(c, Resumable)}
    if position.step == 0:
        for metric in model.training_metrics():
            metric.reset_state()
    listeners.on_epoch_begin(position.epoch)
    iterator = iter(_distributed(examples, config, position, strategy))
    while position.step < examples.steps_per_epoch:
        count = min(_steps_per_call(model, config, strategy), examples.steps_per_epoch - position.step)
        if config.checkpoint_every_steps:
            count = min(count, config.checkpoint_every_steps - position.step % config.checkpoint_every_steps)
        listeners.on_train_batch_begin(position.step)
        loss = run_steps(iterator, count)
        position.step += count
        listeners.on_train_batch_end(position.step - 1, {"loss": loss})
        at_checkpoint = config.checkpoint_every_steps and position.step % config.checkpoint_every_steps == 0
        if at_checkpoint and position.step < examples.steps_per_epoch:
            _save(checkpoints, resumable)
    return model.training_logs()


def _steps_per_call(model: EmbeddingModel, config: TrainingConfig, strategy: tf.distribute.Strategy) -> int:
    """One where replicas gather sparse gradients whose lengths depend on the batch, those of tables with rows of
    several widths: TensorFlow wants a collective to have the same shape in all steps of one graph call.
    """
    stores = [table.store for table in model.embeddings.tables.values()]
    varies = any(isinstance(store, FrequencyBlocks | PlannedRows) for store in stores)
    return 1 if varies and strategy.num_replicas_in_sync > 1 else config.steps_per_call


def _save(checkpoints: Checkpoints, resumable: dict[str, Resumable]) -> None:
    checkpoints.position.callbacks = {name: callback.state for name, callback in resumable.items()}
    checkpoints.save()


def _best_names(resumable: dict[str, Resumable]) -> list[str]:
    return [callback.state["name"] for callback in resumable.values() if callback.state.get("name")]


def _steps(model: EmbeddingModel, strategy: tf.distribute.Strategy) -> Steps:
    @tf.function
    def run(iterator: Iterator, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            strategy.run(model.train_step, args=(next(iterator),))

    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        coordinator = _coordinator(strategy)

        def schedule(iterator: Iterator, count: int) -> float:
            for _ in range(count):
                coordinator.schedule(run, args=(iterator, tf.constant(1)))
            coordinator.join()
            return float(model.loss_metric.result())

        return schedule

    def steps(iterator: Iterator, count: int) -> float:
        run(iterator, tf.constant(count))
        return float(model.loss_metric.result())

    return steps


def _distributed(
    examples: Examples | Sequences, config: TrainingConfig, position: Position, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return examples.batches(
            position.epoch,
            position.step,
            Shard(context.input_pipeline_id, context.num_input_pipelines),
            context.get_per_replica_batch_size(config.batch_size),
        )

    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        assert isinstance(examples, Examples)  # `ExperimentConfig` says so
        folder = str(examples.store())

        def stored(_: tf.distribute.InputContext) -> tf.data.Dataset:
            # Without a seed: the strategy numbers no workers, and with one order they would all read the same batches.
            return tf.data.Dataset.load(folder).shuffle(examples.steps_per_epoch).repeat()

        return _coordinator(strategy).create_per_worker_dataset(
            lambda: strategy.distribute_datasets_from_function(stored)
        )
    return strategy.distribute_datasets_from_function(local)


def _coordinator(strategy: tf.distribute.ParameterServerStrategy) -> tf.distribute.coordinator.ClusterCoordinator:
    return tf.distribute.coordinator.ClusterCoordinator(strategy)  # one per strategy, however often it is asked for
