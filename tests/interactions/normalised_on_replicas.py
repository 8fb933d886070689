"""Normalises a batch on one device, and in unequal parts on two, and writes what comes out to the file named."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.interactions.arm_net import NeuronNormalisation

X = np.exp(np.random.default_rng(0).normal(size=(9, 2, 3, 4))).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)


def normalise(*parts: slice) -> dict[str, NDArray[np.float32]]:
    """Output, gradient of its weighted sum by x, and moving averages, with a part of the batch on each device."""
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(len(parts))])
    with strategy.scope():
        layer = NeuronNormalisation("normalisation")
        layer(X)

    @tf.function
    def run(x: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * weights)
        return y, tape.gradient(loss, x)

    def distributed(whole: NDArray[np.float32]) -> tf.distribute.DistributedValues:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(whole[parts[context.replica_id_in_sync_group]])
        )

    found = strategy.run(run, args=(distributed(X), distributed(WEIGHTS)))
    output, gradient = (np.concatenate(strategy.experimental_local_results(values)) for values in found)
    return {
        "output": output,
        "gradient": gradient,
        "moving_mean": layer.moving_mean.numpy(),
        "moving_variance": layer.moving_variance.numpy(),
    }


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    alone, together = normalise(slice(0, 9)), normalise(slice(0, 3), slice(3, 9))
    np.savez(sys.argv[1], **{name: np.stack([alone[name], together[name]]) for name in alone})
