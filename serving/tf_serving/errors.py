"""Errors as TensorFlow Serving tells them: a gRPC code and a text."""

from __future__ import annotations

import grpc

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.INTERNAL: 500,
}
"""As TensorFlow Serving's REST API gives them."""


class ServableError(Exception):
    """A request that cannot be answered."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def invalid(text: str) -> ServableError:
    """The request's fault."""
    return ServableError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> ServableError:
    """No such model."""
    return ServableError(grpc.StatusCode.NOT_FOUND, text)
