"""The way to the model process when nobody, or somebody else, is at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest

from serving.engine.engine import Answer, EngineBusyError, EngineGoneError
from serving.engine.remote import RemoteEngine


class Channel:
    """Fails so many times with a code, and then answers."""

    def __init__(self, failures: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.asked: list[str] = []
        self._failures, self._code = failures, code

    def unary_unary(self, method: str) -> Callable[..., Awaitable[bytes]]:
        async def call(message: bytes, timeout: float) -> bytes:
            self.asked.append(method)
            if len(self.asked) <= self._failures:
                raise grpc.aio.AioRpcError(self._code, grpc.aio.Metadata(), grpc.aio.Metadata(), "killed")
            return Answer(200, message).packed()

        return call


def ask(channel: Channel, method: str = "recommend") -> Answer:
    return asyncio.run(RemoteEngine(channel).call(method, b"{}"))


def test_who_was_killed_is_asked_once_more() -> None:
    channel = Channel(1)
    assert ask(channel) == Answer(200, b"{}")
    assert channel.asked == ["/recsys.Engine/recommend"] * 2
    with pytest.raises(EngineGoneError, match="UNAVAILABLE: killed"):
        ask(Channel(2))


@pytest.mark.parametrize("method", ["event", "feedback"])
def test_what_would_count_twice_is_not_asked_twice(method: str) -> None:
    channel = Channel(1)
    with pytest.raises(EngineGoneError):
        ask(channel, method)
    assert len(channel.asked) == 1


def test_who_has_too_much_to_do_is_not_gone() -> None:
    channel = Channel(1, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(EngineBusyError):
        ask(channel)
    assert len(channel.asked) == 1
