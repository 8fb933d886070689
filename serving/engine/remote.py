"""The way from a web worker to the model process: gRPC over a Unix socket, bytes in, bytes out.

The socket's path is a link that the supervisor moves to the next model process. A process that ends by order says so to
its clients (GOAWAY), and they connect again by the link; of one that was killed, the next is asked once more, if there
is one. Asked twice, methods give what they give once, but for those of `ONCE`.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

from serving.engine.engine import Answer, EngineBusyError, EngineGoneError

SERVICE = "recsys.Engine"
ONCE = frozenset({"event", "feedback"})
"""Methods that must not be asked again where it is not known whether they were answered."""
PATIENCE = 30.0
"""Seconds that an answer may take."""
OPTIONS = (
    # Nothing but the supervisor and the kernel decides who answers; proxies of the environment do not.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A process that is back is found at once: connecting to a local socket costs nothing.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def channel_to(socket: Path) -> grpc.aio.Channel:
    """To the model process; connects when first used."""
    return grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)


async def ask(call: grpc.aio.UnaryUnaryMultiCallable, message: bytes, patience: float) -> bytes:
    """The answer of the process that is there now, or of the next one.

    Raises:
        grpc.aio.AioRpcError: neither answers, or not in time.
    """
    try:
        return await call(message, timeout=patience)
    except grpc.aio.AioRpcError as error:
        if error.code() not in _GONE:
            raise
    return await call(message, timeout=patience)


class RemoteEngine:
    """The model process behind a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, body: bytes, patience: float = PATIENCE) -> Answer:
        """See `Engine`."""
        try:
            call = self._channel.unary_unary(f"/{SERVICE}/{method}")
            if method in ONCE:
                return Answer.unpacked(await call(body, timeout=patience))
            return Answer.unpacked(await ask(call, body, patience))
        except grpc.aio.AioRpcError as error:
            kind = EngineBusyError if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else EngineGoneError
            raise kind(f"{error.code().name}: {error.details()}") from error
