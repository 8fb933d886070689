"""TensorFlow Serving's REST API, in the model process."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import MessageToDict

from serving.engine.engine import Answer
from serving.tf_serving.errors import HTTP_STATUS, ServableError, invalid
from serving.tf_serving.json_tensors import inputs_of, parsed, response_of
from serving.tf_serving.rest_call import RestCall
from serving.tf_serving.servables import DEFAULT, Servables


def answer(servables: Servables, message: bytes) -> Answer:
    """The answer to a `RestCall` and its body; an error is one line in `error`."""
    call, body = RestCall.unpacked(message)
    try:
        found = _answer(servables, call, body)
    except ServableError as error:
        return Answer(HTTP_STATUS.get(error.code, 500), json.dumps({"error": error.text}).encode())
    return Answer(200, json.dumps(found, ensure_ascii=False).encode())


def _answer(servables: Servables, call: RestCall, body: bytes) -> dict[str, Any]:
    match call.verb:
        case "predict":
            return _predict(servables, call, parsed(body))
        case "status":
            servables.check_status(call.model, call.version)
            status = {"error_code": "OK", "error_message": ""}
            version = {"version": str(servables.version), "state": "AVAILABLE", "status": status}
            return {"model_version_status": [version]}
        case "metadata":
            return _metadata(servables, call)
        case "classify" | "regress":
            servables.find(call.model, call.version)
            raise invalid(
                f"Expected {call.verb} signature method_name to be tensorflow/serving/{call.verb}. "
                "Was: tensorflow/serving/predict"
            )


def _predict(servables: Servables, call: RestCall, request: dict[str, Any]) -> dict[str, Any]:
    servable = servables.find(call.model, call.version)
    signature = request.get("signature_name", DEFAULT)
    if not isinstance(signature, str):
        raise invalid("JSON Value: not formatted correctly. 'signature_name' key must be a string value.")
    inputs, by_row = inputs_of(request, servable.input_types(signature or DEFAULT))
    return response_of(servable.predict(signature or DEFAULT, inputs), by_row)


def _metadata(servables: Servables, call: RestCall) -> dict[str, Any]:
    signatures = servables.find(call.model, call.version).signature_defs
    told = {
        name: MessageToDict(signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for name, signature in signatures.items()
    }
    return {
        "model_spec": {"name": call.model, "signature_name": "", "version": str(servables.version)},
        "metadata": {"signature_def": {"signature_def": told}},
    }
