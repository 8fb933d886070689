"""Full-catalogue evaluation, all metrics and five slicings, against TFRS' FactorizedTopK.

    python benchmarks/full_catalogue.py [--users 100000] [--items 50000] [--rounds 5] [--force] [--out FILE]

Vectors of width 64 are given, so that ranking and measuring alone are timed. recsys ranks every item for every user,
without the 50 that the user has had, measures all 1 to 20 relevant items of each at three cut-offs, by slices of items
and users, and puts an interval around every mean. TFRS takes pairs of a query and one relevant item, and says how many
of them are found among the first 10, 50 and 100, seen items or not. It is timed on some thousand pairs, twice as many
to see that time grows with their number, and held against recsys in two ways:

    every pair   one for each relevant item, as TFRS' tutorials evaluate, and as many relevant items as recsys measures
    one a user   as if each user had a single relevant item: less than recsys does

The Streaming layer gets its candidates in batches of 128, as in the tutorials, which the target is about, and in
larger ones.
Each contender has a process of its own, and they take turns, round after round; medians count. While others load the
machine nothing is judged: it says so, and ends with status 2 (at once, unless --force). Status 1: a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import NamedTuple

from contest import QUIET, others
from peers.ranking import CONTENDERS, DIM, INTERVALS, KS, RECSYS, SEEN, TUTORIAL, World

from recsys.evaluation.record import Environment
from recsys.files import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "full_catalogue.json"
PAIRS = 4_096
"""Of TFRS' smaller measurement."""
MOST_MEMORY_GIB, FASTER = 3.0, 10.0
"""The memory of recsys, and its speed beside Streaming on every pair."""


class Turn(NamedTuple):
    """One round of one contender."""

    seconds: float
    cpu: float
    """Seconds of work, over all cores: it hardly depends on what else runs on the machine."""
    memory_gib: float
    """The peak of its process so far."""


class Contender:
    """A process that evaluates when it is told for how many users or pairs."""

    def __init__(self, name: str, users: int, items: int) -> None:
        command = [sys.executable, "-m", "peers.ranking", name, str(users), str(items)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE, env=environment
        )
        self.name = name

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, count: int) -> Turn:
        """Evaluate so many users or pairs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended before its time; what it said stands above")
        return Turn(**json.loads(line))


Turns = dict[tuple[str, int], list[Turn]]
"""Contender and number of users or pairs -> its rounds."""


def measure(users: int, items: int, rounds: int) -> Turns:
    """Every contender once a round, after a small turn to warm up. Neighbours in time are to be compared."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(name, users, items)) for name in CONTENDERS]
        found: Turns = {}
        for each in contenders:
            each.run(min(PAIRS, users) // 2)
        for _ in range(rounds):
            for each in contenders:
                for count in [users] if each.name in (RECSYS, INTERVALS) else [PAIRS, 2 * PAIRS]:
                    found.setdefault((each.name, count), []).append(each.run(count))
        return found


def judge(turns: Turns, users: int, pairs: int) -> dict[str, dict[str, float]]:
    """Contender -> seconds for all, of the clock and of work; memory; and of TFRS' how many times those of recsys."""
    median = {case: Turn(*map(statistics.median, zip(*found, strict=True))) for case, found in turns.items()}
    ours = median[RECSYS, users]
    table = {}
    for name in CONTENDERS:
        memory = max(turn.memory_gib for (who, _), found in turns.items() if who == name for turn in found)
        if (name, users) in median:
            mine = median[name, users]
            table[name] = {"seconds": mine.seconds, "cpu_seconds": mine.cpu, "memory_gib": memory}
            continue
        some = median[name, 2 * PAIRS]
        all_pairs = pairs / (2 * PAIRS)
        table[name] = {
            "seconds": some.seconds * all_pairs,
            "cpu_seconds": some.cpu * all_pairs,
            "memory_gib": memory,
            "ratio_every_pair": some.seconds * all_pairs / ours.seconds,
            "cpu_ratio_every_pair": some.cpu * all_pairs / ours.cpu,
            "ratio_one_a_user": some.seconds * users / (2 * PAIRS) / ours.seconds,
            "growth_for_twice_the_pairs": some.seconds / median[name, PAIRS].seconds,
        }
    return table


def targets(table: dict[str, dict[str, float]]) -> dict[str, bool]:
    """The promises, against Streaming as TFRS' tutorials have it."""
    return {
        f"under {MOST_MEMORY_GIB:g} GiB": max(table[name]["memory_gib"] for name in (RECSYS, INTERVALS))
        < MOST_MEMORY_GIB,
        f"{FASTER:g}x {TUTORIAL}, every pair": table[TUTORIAL]["ratio_every_pair"] >= FASTER,
    }


COLUMNS = {
    "s": "seconds",
    "CPU s": "cpu_seconds",
    "GiB": "memory_gib",
    "every pair": "ratio_every_pair",
    "in CPU s": "cpu_ratio_every_pair",
    "one a user": "ratio_one_a_user",
    "twice the pairs": "growth_for_twice_the_pairs",
}


def report(table: dict[str, dict[str, float]], held: dict[str, bool], judged: bool) -> None:
    """Prints the medians (TFRS' seconds: what every pair would take), the times of recsys', and what holds."""
    print(f"{'':<24}" + "".join(f"{head:>16}" for head in COLUMNS))
    for name, row in table.items():
        print(f"{name:<24}" + "".join(f"{row[key]:>16.2f}" for key in COLUMNS.values() if key in row))
    for target, holds in held.items():
        print(f"{target}: {('holds' if holds else 'MISSED') if judged else 'not judged'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--force", action="store_true", help="measure although the machine is loaded, judge nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record")
    options = parser.parse_args()
    with others() as at_start:
        sleep(3)
    if at_start.share > QUIET and not options.force:
        print(f"others take {at_start.share:.0%} of the machine ({QUIET:.0%} is quiet): nothing measured; see --force")
        raise SystemExit(2)
    pairs = len(World.make(options.users, options.items).relevant.values)
    with others() as load:
        turns = measure(options.users, options.items, options.rounds)
    judged = max(at_start.share, load.share) <= QUIET
    table = judge(turns, options.users, pairs)
    held = targets(table)
    report(table, held, judged)
    record = {
        "name": "full_catalogue",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": Environment.here().model_dump(),
        "users": options.users,
        "items": options.items,
        "dim": DIM,
        "seen": SEEN,
        "relevant_pairs": pairs,
        "ks": KS,
        "rounds": options.rounds,
        "share_taken_by_others": [round(at_start.share, 3), round(load.share, 3)],
        "judged": judged,
        "targets": {target: holds if judged else None for target, holds in held.items()},
        "medians": {name: {key: round(value, 3) for key, value in row.items()} for name, row in table.items()},
        "seconds": [
            {"contender": name, "count": count, "rounds": [round(turn.seconds, 3) for turn in found]}
            for (name, count), found in turns.items()
        ],
    }
    write_text(options.out, json.dumps(record, indent=1) + "\n")
    if not judged:
        raise SystemExit(0 if options.force else 2)
    raise SystemExit(0 if all(held.values()) else 1)


if __name__ == "__main__":
    main()
