"""Optimizers whose step costs what the batch touches, not what the table holds.

They are Keras optimizers. Keras sums the gradients of an id that occurs several times before `update_step`, so indices
are unique here: that is needed for exactness, and for scatters whose result does not depend on the order of threads.
XLA stays off: it would make the sparse update dense.
"""

from __future__ import annotations

from typing import Any

from recsys._compat import keras, tf
from recsys.embeddings.optimizers.config import TableOptimizerConfig


class LazyAdam(keras.optimizers.Optimizer):
    """Adam (Kingma & Ba 2015, Algorithm 1) that leaves rows without a gradient, and their moments, as they are.

    The bias correction counts the optimizer's steps. `epsilon` is added to sqrt(v̂), as in the paper and torch
    (tf_keras' own Adam adds it before the correction).
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "LazyAdam",
    ) -> None:
        super().__init__(name=name, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes both moments of every variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._m = [self.add_variable_from_reference(model_variable=v, variable_name="m") for v in var_list]
        self._v = [self.add_variable_from_reference(model_variable=v, variable_name="v") for v in var_list]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """One step for one variable; only the rows in `gradient.indices` are read or written."""
        slot = self._index_dict[self._var_key(variable)]
        m, v = self._m[slot], self._v[slot]
        step = tf.cast(self.iterations + 1, variable.dtype)
        correct_m = 1.0 - tf.pow(tf.cast(self.beta_1, variable.dtype), step)
        correct_v = 1.0 - tf.pow(tf.cast(self.beta_2, variable.dtype), step)
        rate = tf.cast(self.learning_rate, variable.dtype)
        rows, g = rows_of(gradient, variable)
        new_m = self.beta_1 * rows.read(m) + (1.0 - self.beta_1) * g
        new_v = self.beta_2 * rows.read(v) + (1.0 - self.beta_2) * tf.square(g)
        rows.write(m, new_m)
        rows.write(v, new_v)
        rows.subtract(variable, rate * (new_m / correct_m) / (tf.sqrt(new_v / correct_v) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "name": self.name,
        }


class RowwiseAdagrad(keras.optimizers.Optimizer):
    """Adagrad (Duchi et al. 2011) with one accumulator a row: a_r += mean_k g_rk²; w_r -= lr g_r / (sqrt(a_r) + eps).

    1/d of the memory of Adagrad; the form that TorchRec and FBGEMM call EXACT_ROWWISE_ADAGRAD.
    """

    def __init__(
        self,
        learning_rate: float = 0.05,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-8,
        name: str = "RowwiseAdagrad",
    ) -> None:
        super().__init__(name=name, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.initial_accumulator, self.epsilon = initial_accumulator, epsilon

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes one accumulator [V, 1] per variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._accumulators = []
        for variable in var_list:
            shape = [variable.shape[0]] + [1] * (variable.shape.rank - 1)
            self._accumulators.append(
                self.add_variable_from_reference(
                    model_variable=variable,
                    variable_name="accumulator",
                    initial_value=tf.fill(shape, tf.cast(self.initial_accumulator, variable.dtype)),
                )
            )

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """One step for one variable; only the rows in `gradient.indices` are read or written."""
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        rows, g = rows_of(gradient, variable)
        squares = tf.reduce_mean(tf.square(g), axis=list(range(1, g.shape.rank)), keepdims=True)
        total = rows.read(accumulator) + squares
        rows.write(accumulator, total)
        rows.subtract(variable, tf.cast(self.learning_rate, variable.dtype) * g / (tf.sqrt(total) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "initial_accumulator": self.initial_accumulator,
            "epsilon": self.epsilon,
            "name": self.name,
        }


class _SomeRows:
    """Reads and writes the rows a sparse gradient names, and copies no others.

    It goes by the resource handle: under a distribution strategy that is this replica's copy, and reading through the
    variable itself would copy the whole slot.
    """

    def __init__(self, indices: tf.Tensor) -> None:
        self._indices = indices

    def read(self, variable: tf.Variable) -> tf.Tensor:
        return tf.raw_ops.ResourceGather(resource=variable.handle, indices=self._indices, dtype=variable.dtype)

    def write(self, variable: tf.Variable, values: tf.Tensor) -> None:
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=self._indices, updates=values)

    def subtract(self, variable: tf.Variable, values: tf.Tensor) -> None:
        tf.raw_ops.ResourceScatterSub(resource=variable.handle, indices=self._indices, updates=values)


class _AllRows:
    """The same for a dense gradient."""

    def read(self, variable: tf.Variable) -> tf.Tensor:
        return variable.read_value()

    def write(self, variable: tf.Variable, values: tf.Tensor) -> None:
        variable.assign(values)

    def subtract(self, variable: tf.Variable, values: tf.Tensor) -> None:
        variable.assign_sub(values)


def rows_of(gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> tuple[_SomeRows | _AllRows, tf.Tensor]:
    """Access to the rows that `gradient` touches, and its values."""
    if isinstance(gradient, tf.IndexedSlices):
        return _SomeRows(gradient.indices), tf.cast(gradient.values, variable.dtype)
    return _AllRows(), tf.cast(gradient, variable.dtype)


def make_table_optimizer(config: TableOptimizerConfig) -> keras.optimizers.Optimizer:
    """The Keras optimizer that a config describes."""
    if config.kind == "lazy_adam":
        return LazyAdam(config.learning_rate, config.beta_1, config.beta_2, config.epsilon)
    assert config.kind == "rowwise_adagrad"
    return RowwiseAdagrad(config.learning_rate, config.initial_accumulator, config.epsilon)
