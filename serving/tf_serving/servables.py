"""A bundle's SavedModels, by TensorFlow Serving's names for what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from recsys._scann import load_scann
from recsys.bundle.bundle import Bundle
from recsys.bundle.layout import GRAPHS, ITEM_TOWER, QUERY_TOWER, RANKER, RETRIEVER, SAVED_MODEL
from serving.tf_serving.errors import ServableError, invalid, not_found

Arrays = dict[str, NDArray[Any]]
DEFAULT = "serving_default"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Servables:
    """Those of one bundle. A SavedModel that recommendations are made with is shared with them; others are loaded when
    somebody asks for them.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.version = bundle.manifest.version
        loads: dict[str, Callable[[], Any]] = {
            QUERY_TOWER: lambda: bundle.query_tower.saved_model,
            ITEM_TOWER: lambda: bundle.item_tower.saved_model,
            RANKER: lambda: bundle.ranker.saved_model,
            RETRIEVER: lambda: _retriever(bundle),
        }
        self._servables = {
            name: Servable(bundle.graph_folder(name), loads[name])
            for name in GRAPHS
            if bundle.graph_folder(name).is_dir()
        }

    def find(self, name: str, version: int | None) -> Servable:
        """Raises `ServableError`: there is none of this name and version."""
        if name not in self._servables or version not in (None, self.version):
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {asked}")
        return self._servables[name]

    def check_status(self, name: str, version: int | None) -> None:
        """Raises `ServableError`, as a question for the status does: there is none."""
        if name not in self._servables:
            raise not_found(f"Could not find any versions of model {name}")
        if version not in (None, self.version):
            raise not_found(f"Could not find version {version} of model {name}")


def _retriever(bundle: Bundle) -> Any:
    index = bundle.manifest.index
    if index is not None and index.kind == "scann":
        load_scann()
    return tf.saved_model.load(str(bundle.graph_folder(RETRIEVER)))


class Servable:
    """One SavedModel."""

    def __init__(self, folder: Path, load: Callable[[], Any]) -> None:
        self._folder, self._load, self._lock = folder, load, Lock()

    @cached_property
    def signature_defs(self) -> Mapping[str, Any]:
        """As its file has them."""
        model = SavedModel.FromString((self._folder / SAVED_MODEL).read_bytes())
        return dict(model.meta_graphs[0].signature_def)

    @cached_property
    def _model(self) -> Any:
        return self._load()

    def input_types(self, signature: str) -> dict[str, Any]:
        """The inputs' types by name.

        Raises:
            ServableError: there is no such signature.
        """
        if signature not in self.signature_defs:
            raise invalid(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self.signature_defs[signature].inputs
        return {name: tf.dtypes.as_dtype(info.dtype) for name, info in sorted(inputs.items())}

    def predict(self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Iterable[str] = ()) -> Arrays:
        """The outputs by name, all or those asked for.

        Raises:
            ServableError: there is no such signature, or what comes in does not fit it.
        """
        with self._lock:  # loaded once, whoever comes first
            known = self._model.signatures
        if signature not in known:
            text = f'Serving signature key "{signature}" not found.'
            raise ServableError(grpc.StatusCode.FAILED_PRECONDITION, text)
        function = known[signature]
        tensors = _tensors(self.signature_defs[signature].inputs, inputs)
        unknown = set(outputs) - set(function.structured_outputs)
        if unknown:
            expected = ",".join(sorted(function.structured_outputs))
            text = f"output tensor alias not found in signature: {min(unknown)} Outputs expected to be in the set"
            raise invalid(f"{text} {{{expected}}}.")
        try:
            found = function(**{_argument(name): tensor for name, tensor in tensors.items()})
        except tf.errors.OpError as error:
            raise ServableError(_CODES[error.error_code], str(error).partition("\n")[0]) from error
        return {name: tensor.numpy() for name, tensor in found.items() if not outputs or name in outputs}


def _tensors(infos: Mapping[str, Any], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    sent, needed = set(inputs), set(infos)
    if sent != needed:
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(needed)} len({_listed(sent)}) != "
            f"len({_listed(needed)}). Sent extra: {_listed(sent - needed)}. "
            f"Missing but required: {_listed(needed - sent)}."
        )
    return {name: _tensor(name, infos[name], array) for name, array in inputs.items()}


def _tensor(name: str, info: Any, array: NDArray[Any]) -> Any:
    dtype, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    given = tf.string if array.dtype.kind in "OSU" else tf.dtypes.as_dtype(array.dtype)
    if given != dtype:
        raise invalid(f"Expects arg[{name}] to be {dtype.name} but {given.name} is provided")
    if not shape.is_compatible_with(array.shape):
        raise invalid(f"Expects arg[{name}] to have shape {shape} but {list(array.shape)} is provided")
    return tf.constant(array, dtype)


def _argument(name: str) -> str:
    """An input's name as TensorFlow's functions have it, which are called by Python's names."""
    return "".join(each if each.isalnum() else "_" for each in name)


def _listed(names: set[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
