"""Many who read, or one who changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """Readers are inside together; a writer is inside alone, and is let in before readers who come after it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = self._writers = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait until nobody changes anything, or waits to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until nobody is inside."""
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._writing)
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writers -= 1
                self._writing = False
                self._changed.notify_all()
