"""The web workers' side of TensorFlow Serving's gRPC: bytes in, bytes out, to the model process and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from serving.config import Limits
from serving.engine.remote import PATIENCE, ask
from serving.web.guard import NO_KEY, Keys, Rates, too_often

SERVICES = ("/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/")
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def start(address: str, limits: Limits, engine: grpc.aio.Channel) -> grpc.aio.Server:
    """A server on a port that other processes share."""
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_send_message_length", -1),
        )
    )
    server.add_generic_rpc_handlers([_Proxy(limits, engine)])
    server.add_insecure_port(address)
    await server.start()
    return server


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, limits: Limits, engine: grpc.aio.Channel) -> None:
        self._engine = engine
        self._keys, self._rate = Keys.read(limits.keys), limits.requests_per_second
        self._rates = Rates(self._rate)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """How a method is answered; None for one that there is not."""
        if not details.method.startswith(SERVICES):
            return None
        return grpc.unary_unary_rpc_method_handler(self._passing(self._engine.unary_unary(details.method)))

    def _passing(
        self, call: grpc.aio.UnaryUnaryMultiCallable
    ) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        async def passed(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
            await self._admit(context)
            left = context.time_remaining()
            try:
                return await ask(call, message, PATIENCE if left is None else min(left, PATIENCE))
            except grpc.aio.AioRpcError as error:
                gone = error.code() in GONE
                code = grpc.StatusCode.UNAVAILABLE if gone else error.code()
                return await context.abort(code, "the model process is not there" if gone else error.details())

        return passed

    async def _admit(self, context: grpc.aio.ServicerContext) -> None:
        headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        if not self._keys.admit(headers):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(NO_KEY))
        client = context.peer().rpartition(":")[0]
        if self._rates.wait(client):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(too_often(self._rate)))
