"""TensorFlow Serving's gRPC services, in the model process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.engine.engine import internal_error
from serving.tf_serving.errors import ServableError, invalid, not_found
from serving.tf_serving.servables import DEFAULT, Servables

T = TypeVar("T")
SIGNATURES = "signature_def"
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def add_to(server: grpc.Server, servables: Servables) -> None:
    """Have a server answer TensorFlow Serving's clients."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(servables), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(servables), server)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`; what is not here is UNIMPLEMENTED."""

    def __init__(self, servables: Servables) -> None:
        self._servables = servables

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Outputs of a signature."""
        return _told(context, lambda: self._predict(request))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """A model's signatures."""
        return _told(context, lambda: self._metadata(request))

    def _predict(self, request: Any) -> Any:
        spec = request.model_spec
        servable = self._servables.find(spec.name, _version(spec))
        signature = spec.signature_name or DEFAULT
        inputs = {name: _array(name, proto) for name, proto in request.inputs.items()}
        found = servable.predict(signature, inputs, tuple(request.output_filter))
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, spec.name, self._servables.version)
        response.model_spec.signature_name = signature
        for name, array in found.items():
            response.outputs[name].CopyFrom(_proto(array))
        return response

    def _metadata(self, request: Any) -> Any:
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        spec = request.model_spec
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._servables.find(spec.name, _version(spec)).signature_defs.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _fill(response.model_spec, spec.name, self._servables.version)
        response.metadata[SIGNATURES].Pack(signatures)
        return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`; bundles are changed by the supervisor alone."""

    def __init__(self, servables: Servables) -> None:
        self._servables = servables

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Of the version that is served."""
        return _told(context, lambda: self._status(request))

    def _status(self, request: Any) -> Any:
        self._servables.check_status(request.model_spec.name, _version(request.model_spec))
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        version = get_model_status_pb2.ModelVersionStatus(version=self._servables.version, state=available)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[version])


def _told(context: grpc.ServicerContext, answer: Callable[[], T]) -> T:
    """An answer, or its error in gRPC's terms; what is a bug tells the client nothing but where to look."""
    try:
        return answer()
    except ServableError as error:
        _abort(context, error.code, error.text)
    except Exception:
        _abort(context, grpc.StatusCode.INTERNAL, internal_error("gRPC").body.decode())


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text)
    raise AssertionError("abort raises")


def _version(spec: Any) -> int | None:
    if spec.version_label:
        raise not_found(f"Unrecognized servable version label: {spec.version_label}")
    return int(spec.version.value) if spec.HasField("version") else None


def _fill(spec: Any, name: str, version: int) -> None:
    spec.name = name
    spec.version.value = version


def _array(name: str, proto: Any) -> NDArray[Any]:
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (TypeError, ValueError, KeyError) as error:
        raise invalid(f"tensor parsing error: {name}") from error


def _proto(array: NDArray[Any]) -> Any:
    """With the values in the field of their type, where clients look for them (`float_val`), not as raw bytes."""
    dtype = tf.string if array.dtype.kind in "OS" else tf.dtypes.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    proto = tf.make_tensor_proto([], dtype, shape=[0])
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    getattr(proto, _FIELDS[dtype]).extend(array.reshape(-1).tolist())
    return proto
