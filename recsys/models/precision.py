"""Training below float32; everything else in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from recsys._compat import keras, tf

Precision = Literal["float32", "mixed_bfloat16"]


@contextmanager
def made_for(precision: Precision) -> Iterator[None]:
    """Layers and weights that are made inside can compute in that precision; weights are float32 in any case.

    Args:
        precision: a Keras policy.
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


class MixedLayers:
    """A model's layers that were made for a mixed policy: they compute in float32, but for inside `mixed`.

    So only training is affected: validation, evaluation and SavedModels are traced in float32. Layers that were made
    for float32 stay so: tables, Dice, ARM-Net.

    Args:
        model: built, with all its layers.
    """

    def __init__(self, model: tf.Module) -> None:
        layers = [module for module in model.submodules if isinstance(module, keras.layers.Layer)]
        self._policies = {id(layer): (layer, layer.dtype_policy) for layer in layers if _is_mixed(layer.dtype_policy)}
        self._float32 = keras.mixed_precision.Policy("float32")
        self._inside = 0
        self._compute(mixed=False)

    @contextmanager
    def mixed(self) -> Iterator[None]:
        """What is traced inside is computed by the policy that each layer was made for."""
        self._inside += 1  # a strategy's replicas are traced in turns, and may all be inside
        self._compute(mixed=True)
        try:
            yield
        finally:
            self._inside -= 1
            self._compute(mixed=self._inside > 0)

    def _compute(self, mixed: bool) -> None:
        for layer, policy in self._policies.values():
            layer._set_dtype_policy(policy if mixed else self._float32)


def _is_mixed(policy: keras.mixed_precision.Policy) -> bool:
    return bool(policy.compute_dtype != policy.variable_dtype)
