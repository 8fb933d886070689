"""How long stages of an answer take, and may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class LateError(Exception):
    """A stage has not ended within its budget."""


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what stands inside."""
        start = perf_counter()
        yield
        self.milliseconds[name] = round(1_000 * (perf_counter() - start), 3)


class Budget:
    """Runs work in threads of its own, so that the caller can go on without it.

    Work that is late before it has begun never begins. Work that has begun is not stopped: it keeps its thread, and
    while all threads are kept so, all else is late; nothing piles up.

    Args:
        name: of the threads.
        milliseconds: of one piece of work, with the time that it waits for a thread.
        threads: work that goes on at once, at most.
    """

    def __init__(self, name: str, milliseconds: float, threads: int) -> None:
        self._seconds = milliseconds / 1_000
        self._pool = ThreadPoolExecutor(threads, name)

    def spent_on(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises.

        Raises:
            LateError: it takes longer than the budget.
        """
        future = self._pool.submit(work)
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            future.cancel()
            raise LateError from None
