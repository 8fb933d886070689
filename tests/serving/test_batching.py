"""Calls made together: everyone gets what is theirs, and nobody waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, get_ident

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.pipeline.batching import Batcher

LONG = 60.0


class Held:
    """Squares rows; each call is held until it is let go, and noted. Negative rows are refused."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.started, self.go = Event(), Event()
        self._lock = Lock()

    def __call__(self, rows: Sequence[int]) -> list[list[int]]:
        with self._lock:
            self.calls.append(list(rows))
        self.started.set()
        assert self.go.wait(LONG)
        if min(rows) < 0:
            raise ValueError(f"{min(rows)}")
        return squares(rows)


def squares(rows: Sequence[int]) -> list[list[int]]:
    return [[row, row * row] for row in rows]


def until_waiting(batcher: Batcher[int, list[int]], count: int) -> None:
    while len(batcher._waiting) < count:
        pass


def test_alone_nobody_waits() -> None:
    """In the caller's own thread, at once: a delay of an hour is of no consequence."""
    threads = list[int]()

    def call(rows: Sequence[int]) -> list[list[int]]:
        threads.append(get_ident())
        return squares(rows)

    batcher = Batcher(call, rows=8, delay=3_600)
    assert [batcher([n]) for n in range(3)] == [[[0, 0]], [[1, 1]], [[2, 4]]]
    assert threads == [get_ident()] * 3


def test_those_who_come_during_a_call_go_together_after_it() -> None:
    held = Held()
    batcher = Batcher(held, rows=4, delay=LONG)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(batcher, [1])]
        assert held.started.wait(LONG)
        for n, rows in enumerate(([2], [3, 4], [5], [6]), start=1):
            answers.append(pool.submit(batcher, rows))
            until_waiting(batcher, n)
        held.go.set()
        found = [answer.result(LONG) for answer in answers]
    assert found == [squares(rows) for rows in ([1], [2], [3, 4], [5], [6])]
    assert held.calls == [[1], [2, 3, 4, 5], [6]]


def test_nobody_waits_longer_than_the_delay() -> None:
    """The first call never ends by itself; the second starts beside it, with the one who waits as well."""
    held, free = Held(), Held()
    free.go.set()
    batcher = Batcher[int, list[int]](lambda rows: held(rows) if rows[0] == 1 else free(rows), rows=8, delay=0.05)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher, [1])
        assert held.started.wait(LONG)
        assert pool.submit(batcher, [2]).result(LONG) == [[2, 4]]
        assert not first.done()
        held.go.set()
        assert first.result(LONG) == [[1, 1]]
    assert free.calls == [[2]]


def test_an_error_comes_to_who_caused_it() -> None:
    held = Held()
    batcher = Batcher(held, rows=8, delay=LONG)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(batcher, [1])]
        assert held.started.wait(LONG)
        for n, rows in enumerate(([2], [-3], [4]), start=1):
            answers.append(pool.submit(batcher, rows))
            until_waiting(batcher, n)
        held.go.set()
        with pytest.raises(ValueError, match="-3"):
            answers.pop(2).result(LONG)
        assert [answer.result(LONG) for answer in answers] == [squares([n]) for n in (1, 2, 4)]
    assert held.calls == [[1], [2, -3, 4], [2], [-3], [4]]
    assert batcher([5]) == [[5, 25]]


@settings(max_examples=10)
@given(
    callers=st.lists(st.lists(st.integers(-1, 10**6), min_size=1, max_size=5), min_size=1, max_size=64),
    rows=st.integers(1, 16),
    delay=st.sampled_from([0.0, 0.0001, 0.01]),
)
def test_nothing_is_mixed_up(callers: list[list[int]], rows: int, delay: float) -> None:
    """16 threads, each answer that of its own rows, or its own refusal; no call larger than allowed, none empty."""
    sizes = list[int]()

    def call(given: Sequence[int]) -> list[list[int]]:
        sizes.append(len(given))
        if min(given) < 0:
            raise ValueError("negative")
        return squares(given)

    batcher = Batcher(call, rows, delay)

    def ask(own: list[int]) -> list[list[int]] | None:
        try:
            return list(batcher(own))
        except ValueError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, callers * 4))
    assert found == [None if min(own) < 0 else squares(own) for own in callers] * 4
    assert min(sizes) > 0
    assert max(sizes) <= max(rows, *map(len, callers))
    assert not batcher._waiting
    assert batcher._running == 0
