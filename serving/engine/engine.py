"""What stands between the web and a bundle: methods by name, JSON in, JSON out.

An `Engine` is asked in this process (`LocalEngine`) or in the model process (`serving.engine.remote.RemoteEngine`); the
routes of `serving.web.application` do not know which.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Protocol, Self

from pydantic_core import to_json

from recsys.errors import Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """JSON, and the HTTP status that goes with it."""

    status: int
    body: bytes

    def packed(self) -> bytes:
        """As one message between processes."""
        return b"%03d" % self.status + self.body

    @classmethod
    def unpacked(cls, message: bytes) -> Self:
        """The inverse."""
        return cls(int(message[:3]), message[3:])

    @classmethod
    def refused(cls, status: int, problems: Sequence[Problem]) -> Self:
        """An error, one object a problem."""
        return cls(status, to_json({"error": [asdict(problem) for problem in problems]}))


class EngineGoneError(Exception):
    """Nobody answers, or not in time; the message says why."""


class EngineBusyError(EngineGoneError):
    """Somebody is there, with more to do than can be done in time."""


class Engine(Protocol):
    """Answers by method."""

    async def call(self, method: str, body: bytes) -> Answer:
        """The answer to the JSON of a request.

        Raises:
            EngineGoneError: there is none.
        """


def internal_error(place: str) -> Answer:
    """For an exception that is a bug: it goes to the log, and its id to the client."""
    number = secrets.token_hex(6)
    _log.exception("%s: internal error %s", place, number)
    cure = f"look for {number} in the server's log"
    return Answer.refused(500, [Problem("server", "an error of its own", "an answer", cure)])


class LocalEngine:
    """In this process, on threads of its own."""

    def __init__(self, answer: Callable[[str, bytes], Answer], threads: int) -> None:
        self._answer = answer
        self._threads = ThreadPoolExecutor(threads, "engine")

    async def call(self, method: str, body: bytes) -> Answer:
        """See `Engine`; it is always there."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._answer, method, body)
