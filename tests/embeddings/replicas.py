"""Trains tables on one device or several virtual ones, and writes what they hold: python replicas.py DEVICES FILE."""

from __future__ import annotations

import sys

import numpy as np

from recsys._compat import tf
from recsys.embeddings.optimizers import Adagrad, LazyAdam, RowwiseAdagrad, clip_by_global_norm
from recsys.embeddings.packing import pack, scales

V, D, BATCH, STEPS = 50, 4, 16, 6
MAKES = {
    "lazy_adam": lambda: LazyAdam(0.01),
    "coupled": lambda: LazyAdam(0.01, coupled_decay=0.05),
    "mini_batch_aware": lambda: Adagrad(0.1, mini_batch_aware_decay=20.0),
    "rowwise_adagrad": lambda: RowwiseAdagrad(0.1, decoupled_decay=0.1),
    "clipped_adagrad": lambda: Adagrad(0.1, global_clipnorm=1.0),
    "adagrad": lambda: Adagrad(0.1),
}
CASES = [
    ("lazy_adam", "int8", None),
    ("coupled", "float32", None),
    ("mini_batch_aware", "float32", None),
    ("rowwise_adagrad", "bfloat16", None),
    ("clipped_adagrad", "float32", None),
    ("adagrad", "float32", None),
    ("adagrad", "float32", 2.0),
]


def train(devices: int, optimizer_name: str, kind: str, clip: float | None) -> np.ndarray:
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(devices)])
    random = np.random.default_rng(0)
    start = tf.constant(random.normal(scale=0.1, size=(V, D)), tf.float32)
    initial = pack(start, scales(start)) if kind == "int8" else tf.cast(start, kind)
    with strategy.scope():
        table = tf.Variable(initial, trainable=kind == "float32", name="table")
        dense = tf.Variable([1.0, 2.0], name="dense")
        optimizer, other = MAKES[optimizer_name](), tf.keras.optimizers.SGD(0.1, jit_compile=False)
        optimizer.build([table], [1 + np.arange(V)])
        other.build([dense])

    def replica_step(ids: tf.Tensor, rows: tf.Tensor) -> None:
        table_gradient = tf.IndexedSlices(rows, ids, tf.constant([V, D], tf.int64))
        gradients = [table_gradient, None, tf.reduce_sum(rows[:, :2], axis=0)]
        if clip:
            gradients, _ = clip_by_global_norm(gradients, clip)
        optimizer.apply_gradients([(gradients[0], table)], skip_gradients_aggregation=clip is not None)
        other.apply_gradients([(gradients[2], dense)], skip_gradients_aggregation=clip is not None)

    @tf.function
    def step(ids: tf.Tensor, rows: tf.Tensor) -> None:
        strategy.run(replica_step, args=(ids, rows))

    share = BATCH // devices
    for _ in range(STEPS):
        ids, rows = random.integers(0, V, BATCH), random.normal(size=(BATCH, D)).astype(np.float32)
        step(
            *(
                strategy.experimental_distribute_values_from_function(
                    lambda context, whole=whole: tf.constant(whole[share * context.replica_id_in_sync_group :][:share])
                )
                for whole in (ids, rows)
            )
        )
    optimizer.flush()
    for variable in (table, *optimizer.variables):
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable)]
        assert all(np.array_equal(copy, copies[0]) for copy in copies), f"replicas differ in {variable.name}"
    found = tf.bitcast(table.read_value(), tf.int8) if kind == "bfloat16" else table.read_value()
    return np.concatenate([found.numpy().ravel().astype(np.float64), dense.numpy()])


if __name__ == "__main__":
    count = int(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    np.savez(sys.argv[2], **{f"{name}-{kind}-{clip}": train(count, name, kind, clip) for name, kind, clip in CASES})
