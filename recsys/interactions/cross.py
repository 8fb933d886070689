"""The cross network of DCN-V2 (Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from recsys._compat import keras, tf, tfrs
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import CrossConfig


class CrossNetwork(keras.layers.Layer):
    """All features' vectors, concatenated, crossed with themselves: [B, n] -> [B, n].

        x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l,   W_l = V_l U_l of rank `projection_dim` if there is one (eqs. 1 and 2)

    Args:
        config: how many layers, and of what rank.
        seed: the experiment's seed.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: CrossConfig, seed: int, name: str = "cross") -> None:
        super().__init__(name=name)
        self._config = config
        self._layers = [
            _Cross(config.projection_dim, kernel_initializer=_Glorot(seed_for(seed, "cross", layer)), name=layer)
            for layer in (f"{name}_{number}" for number in range(config.layers))
        ]

    def build(self, shape: tf.TensorShape) -> None:
        """Looks at the width, and leaves the weights to the layers.

        Raises:
            ValueError: the config does not fit the width.
        """
        for key, text in self._config.problems(shape[-1]):
            raise ValueError(f"{key}: {text}")
        super().build(shape)

    def input_weights(self) -> list[tuple[tf.Variable, tuple[int, ...]]]:
        """The weights with axes along the input, and which those are: all of them, a full W along both."""
        if self._config.projection_dim is None:
            dense = [layer._dense for layer in self._layers]
            return [pair for layer in dense for pair in ((layer.kernel, (0, 1)), (layer.bias, (0,)))]
        factors = [(layer._dense_u, layer._dense_v) for layer in self._layers]
        return [pair for u, v in factors for pair in ((u.kernel, (0,)), (v.kernel, (1,)), (v.bias, (0,)))]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Through all layers."""
        crossed = x
        for layer in self._layers:
            crossed = layer(x, crossed)
        return crossed


class _Cross(tfrs.layers.dcn.Cross):
    """TFRS makes its dense layers for the type of the weights; here they also compute in that of the policy."""

    def build(self, shape: tf.TensorShape) -> None:
        super().build(shape)
        for dense in (self._dense,) if self._projection_dim is None else (self._dense_u, self._dense_v):
            dense._set_dtype_policy(self.dtype_policy)


class _Glorot(keras.initializers.Initializer):
    """Glorot's uniform distribution with a seed for each shape: TFRS gives copies of one initializer to both factors of
    a low-rank layer, which would otherwise begin with the same numbers.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, shape: Sequence[int], dtype: tf.DType | None = None) -> tf.Tensor:
        seed = seed_for(self._seed, *map(str, shape))
        return keras.initializers.GlorotUniform(seed)(shape, dtype)

    def get_config(self) -> dict[str, int]:
        return {"seed": self._seed}
