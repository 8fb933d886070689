"""Calls of many threads to one model, made together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Generic, TypeVar

from serving.config import Together

Row = TypeVar("Row")
Found = TypeVar("Found")
Call = Callable[[Sequence[Row]], Sequence[Found]]
"""What it finds for each of n rows."""


def together(call: Call[Row, Found], config: Together | None) -> Call[Row, Found]:
    """The function, or one that puts the rows of many threads together."""
    return call if config is None else Batcher(call, config.rows, config.delay / 1_000)


class _Ticket(Generic[Row, Found]):
    """One caller's rows, and what became of them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.wake = Event()
        """Set when the outcome is there, or when the caller is to run `leads`."""
        self.leads: list[_Ticket[Row, Found]] = []
        self.found: Sequence[Found] | None = None
        self.error: Exception | None = None

    def result(self) -> Sequence[Found]:
        if self.error is not None:
            raise self.error
        assert self.found is not None
        return self.found


class Batcher(Generic[Row, Found]):
    """A function of rows that threads call with a few of theirs each, and that runs on those of several at once.

    Whoever comes while no call runs goes at once, alone. Whoever comes during a call waits for its end, or for `delay`
    at most, and then takes along everyone who waits by then. So rows go together exactly when there is something to
    wait for, and no thread stands between callers and the function.

    Args:
        call: what it finds for each of n rows.
        rows: taken together, at most; a caller with more goes alone.
        delay: seconds.
    """

    def __init__(self, call: Call[Row, Found], rows: int, delay: float) -> None:
        self._call, self._rows, self._delay = call, rows, delay
        self._lock = Lock()
        self._waiting: deque[_Ticket[Row, Found]] = deque()
        self._running = 0

    def __call__(self, rows: Sequence[Row]) -> Sequence[Found]:
        """What is found for each of these rows. What `call` raises on them comes to their caller alone."""
        ticket: _Ticket[Row, Found] = _Ticket(rows)
        together = self._joined(ticket)
        if together:
            try:
                self._run(together)
            finally:
                self._ended()
        return ticket.result()

    def _joined(self, own: _Ticket[Row, Found]) -> list[_Ticket[Row, Found]]:
        """Those whom the caller has to run, itself among them; nobody once another has run it."""
        with self._lock:
            if not self._running:
                self._running += 1
                return [own]
            self._waiting.append(own)
        own.wake.wait(self._delay)
        with self._lock:
            if own in self._waiting:
                return self._taken(own)
        if not own.leads:
            own.wake.wait()
        return own.leads

    def _taken(self, leader: _Ticket[Row, Found]) -> list[_Ticket[Row, Found]]:
        """The leader, and as many of those who wait as fit; the lock is held."""
        self._waiting.remove(leader)
        found, count = [leader], len(leader.rows)
        while self._waiting and count + len(self._waiting[0].rows) <= self._rows:
            count += len(self._waiting[0].rows)
            found.append(self._waiting.popleft())
        self._running += 1
        return found

    def _ended(self) -> None:
        """Those who wait go next, led by the first of them."""
        with self._lock:
            self._running -= 1
            if not self._waiting:
                return
            leader = self._waiting[0]
            leader.leads = self._taken(leader)
        leader.wake.set()

    def _run(self, tickets: Sequence[_Ticket[Row, Found]]) -> None:
        try:
            found = self._call([row for ticket in tickets for row in ticket.rows])
        except Exception as error:
            if len(tickets) > 1:  # one of them is at fault
                for ticket in tickets:
                    self._run([ticket])
                return
            tickets[0].error = error
        else:
            start = 0
            for ticket in tickets:
                ticket.found = found[start : start + len(ticket.rows)]
                start += len(ticket.rows)
        for ticket in tickets:
            ticket.wake.set()
