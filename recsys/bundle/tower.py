"""A tower or ranker: the `serving_default` signature of a SavedModel, on arrays."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.manifest import EXPLAIN, signature_name
from recsys.errors import BundleError


class ServedGraph:
    """Raw features in, embeddings or scores out. Loading it imports TensorFlow, and nothing of Keras.

    Args:
        folder: the SavedModel.
        inputs: the features that it takes, as the manifest says.
        output: which of its outputs a call returns.
        further: outputs that it must have beside that one.

    Raises:
        BundleError: the SavedModel cannot be loaded, or takes or gives other things than the manifest says.
    """

    def __init__(self, folder: Path, inputs: frozenset[str], output: str, further: Sequence[str] = ()) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        self._tf, self._folder, self._output = tf, folder, output
        self._types = {"O": tf.string, "i": tf.int32}
        try:
            self._model = tf.saved_model.load(str(folder))  # kept: the signature does not hold its variables
            self._signature = self._model.signatures["serving_default"]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise BundleError(str(folder), f"cannot be loaded ({lines[0]})", "a SavedModel", "export again") from error
        takes, expected = set(self._signature.structured_input_signature[1]), {signature_name(i) for i in inputs}
        if takes != expected:
            raise BundleError(
                str(folder),
                f"takes {', '.join(sorted(takes))}",
                f"what the manifest says: {', '.join(sorted(expected))}",
                "export the run again",
            )
        absent = [name for name in (output, *further) if name not in self._signature.structured_outputs]
        if absent:
            raise BundleError(
                str(folder), f"gives no {', '.join(absent)}", "what the manifest says", "export the run again"
            )

    def has(self, signature: str) -> bool:
        """Whether the SavedModel has a signature of this name."""
        return signature in self._model.signatures

    @property
    def saved_model(self) -> Any:
        """As TensorFlow loaded it, for who serves all of its signatures."""
        return self._model

    def signature(self, name: str) -> ServedGraph:
        """Another signature of the same SavedModel, with the same inputs and outputs.

        Raises:
            BundleError: it has none of this name.
        """
        if not self.has(name):
            expected = "a ranker with features of items, exported since there is this signature"
            raise BundleError(
                str(self._folder), f"has no signature {name}", expected, "use score, or export a ranker that has it"
            )
        other = copy.copy(self)
        other._signature = self._model.signatures[name]
        return other

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """[B, d] embeddings or [B] scores of B encoded requests (`RequestEncoder.encode`)."""
        return self.all(arrays)[self._output]

    def all(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Every output by name, likewise."""
        return self._run(self._signature, arrays)

    def explain(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the layers looked at, likewise: the outputs of the signature `explain`.

        Raises:
            BundleError: the SavedModel has no such signature.
        """
        if not self.has(EXPLAIN):
            expected = "a ranker whose layers weigh fields or events: autoint, arm_net, or a sequence layer"
            raise BundleError(
                str(self._folder), f"has no signature {EXPLAIN}", expected, "train another, and export it"
            )
        return self._run(self._model.signatures[EXPLAIN], arrays)

    def _run(self, signature: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tensors = {
            signature_name(name): self._tf.constant(array, self._types.get(array.dtype.kind, self._tf.float32))
            for name, array in arrays.items()
        }
        return {name: tensor.numpy() for name, tensor in signature(**tensors).items()}
