"""Step time of the embedding engine against the size of the vocabulary, and against its peers.

    python benchmarks/step_time.py [--sizes 260000 5200000 26000000] [--rounds 9] [--only row-wise] [--force]

26 categorical fields of width 16, batches of 4,096, an MLP 256-128-1, binary cross-entropy; ids by Zipf's law
(exponent 1.3) and uniform. Three contests: lazy Adam against a `keras.layers.Embedding` for each field with Keras'
Adam (up to 5.2M rows); Adagrad against the same layers with Keras' Adagrad; row-wise Adagrad against FBGEMM's
table-batched embedding, which gets an environment of its own in the cache folder (made by uv).

In a contest all cases take turns, round after round; medians count. While others load the machine nothing is judged:
it says so, and ends with status 2 (at once, unless --force has it measure all the same). Status 1: a target is missed.
A run of all contests and sizes writes the record; the full one needs 12 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import sleep
from typing import NamedTuple

from contest import HERE, QUIET, Contender, Time, environment_of, others
from peers import contender

from recsys.evaluation.record import Environment
from recsys.files import write_text

RESULTS = HERE / "results" / "step_time.json"
SIZES = (260_000, 5_200_000, 26_000_000)
SMALL, MIDDLE, LARGE = SIZES
LAWS: tuple[contender.Law, ...] = ("zipf", "uniform")
BLOCK = 0.7
"""Seconds of steps between two looks at the clock."""
LEVEL = 0.95
"""From this ratio on, two contenders are level."""


class Case(NamedTuple):
    """What is measured."""

    contender: str
    law: contender.Law
    rows: int


class Claim(NamedTuple):
    """A bound on the time of `slower` divided by that of `faster`."""

    slower: Case
    faster: Case
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


class Contest(NamedTuple):
    """Contenders that take turns, ours first, and what we claim."""

    contenders: list[Contender]
    claims: list[Claim]


def contests() -> dict[str, Contest]:
    """By the kind of optimizer."""

    def growth(ours: str) -> Claim:
        return Claim(Case(ours, "zipf", LARGE), Case(ours, "zipf", SMALL), at_most=1.6)

    def against(peer: str, ours: str, rows: int, at_least: float) -> Claim:
        return Claim(Case(peer, "zipf", rows), Case(ours, "zipf", rows), at_least=at_least)

    lazy, adagrad, rowwise = (f"recsys {name}" for name in ("lazy_adam", "adagrad", "rowwise_adagrad"))
    return {
        "Adam": Contest(
            [
                Contender(lazy, ["peers.in_tensorflow", "recsys", "lazy_adam"]),
                # At 26M rows a step takes seconds, and its temporaries are as large as the table.
                Contender("Keras Adam", ["peers.in_tensorflow", "keras", "adam"], largest=MIDDLE),
            ],
            [growth(lazy), against("Keras Adam", lazy, MIDDLE, 8.0)],
        ),
        "Adagrad": Contest(
            [
                Contender(adagrad, ["peers.in_tensorflow", "recsys", "adagrad"]),
                Contender("Keras Adagrad", ["peers.in_tensorflow", "keras", "adagrad"]),
            ],
            [growth(adagrad), against("Keras Adagrad", adagrad, SMALL, 1.3)],
        ),
        "row-wise Adagrad": Contest(
            [
                Contender(rowwise, ["peers.in_tensorflow", "recsys", "rowwise_adagrad"]),
                Contender("FBGEMM", ["peers.fbgemm.in_torch"], partial(environment_of, "fbgemm")),
            ],
            [growth(rowwise), *(against("FBGEMM", rowwise, rows, LEVEL) for rows in SIZES)],
        ),
    }


def measure(contenders: Sequence[Contender], sizes: Sequence[int], rounds: int) -> dict[Case, list[Time]]:
    """A step's time in every case, once a round, after a round to warm up. Neighbours in time are to be compared."""
    cases = {
        Case(each.name, law, rows): each
        for law in LAWS
        for rows in sizes
        for each in contenders
        if rows <= each.largest
    }
    steps = {}
    for case, each in cases.items():
        _run(each, case, 2)  # makes the model, traces, touches memory
        steps[case] = max(2, round(BLOCK / _run(each, case, 3).seconds))
    found: dict[Case, list[Time]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, each in cases.items():
            found[case].append(_run(each, case, steps[case]))
    return found


def _run(each: Contender, case: Case, steps: int) -> Time:
    """The time of a step, over so many of them."""
    return Time(**each.ask({"rows": case.rows, "law": case.law, "steps": steps}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="rows of all tables together")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="only the contests whose name contains this")
    parser.add_argument("--force", action="store_true", help="measure although the machine is loaded, judge nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record")
    options = parser.parse_args()
    with others() as at_start:
        sleep(3)
    if at_start.share > QUIET and not options.force:
        print(f"others take {at_start.share:.0%} of the machine ({QUIET:.0%} is quiet): nothing measured; see --force")
        raise SystemExit(2)
    shares, claims = [at_start.share], list[Claim]()
    times: dict[Case, list[Time]] = {}
    versions: dict[str, str] = {}
    for name, contest in contests().items():
        if options.only not in name:
            continue
        with ExitStack() as stack:
            for each in contest.contenders:
                versions |= stack.enter_context(each).versions
            with others() as load:
                times |= measure(contest.contenders, options.sizes, options.rounds)
            shares.append(load.share)
        claims += [claim for claim in contest.claims if claim.slower in times and claim.faster in times]
    judged = max(shares) <= QUIET
    median = {case: Time(*map(statistics.median, zip(*found, strict=True))) for case, found in times.items()}
    verdicts = [(claim, median[claim.slower].seconds / median[claim.faster].seconds) for claim in claims]
    report(median, verdicts, judged, max(shares))
    if not options.only and set(SIZES) <= set(options.sizes):
        write_text(options.out, json.dumps(record(options, times, verdicts, judged, shares, versions), indent=1) + "\n")
    if not judged:
        raise SystemExit(0 if options.force else 2)
    raise SystemExit(0 if all(claim.holds(ratio) for claim, ratio in verdicts) else 1)


def report(median: dict[Case, Time], verdicts: Sequence[tuple[Claim, float]], judged: bool, share: float) -> None:
    """Prints the medians, and what they say of the claims."""
    sizes = sorted({case.rows for case in median})
    print(f"{'ms a step, and of CPU (medians)':<32}" + "".join(f"{rows / 1e6:>15.2f}M" for rows in sizes))
    for name, law in dict.fromkeys((case.contender, case.law) for case in sorted(median)):
        times = [median.get(Case(name, law, rows)) for rows in sizes]
        cells = (f"{time.seconds * 1e3:.1f} ({time.cpu * 1e3:.1f})" if time else "" for time in times)
        print(f"{f'{name}, {law}':<32}" + "".join(f"{cell:>16}" for cell in cells))
    for claim, ratio in verdicts:
        bound = f">= {claim.at_least}" if claim.at_least is not None else f"<= {claim.at_most}"
        verdict = ("holds" if claim.holds(ratio) else "MISSED") if judged else "not judged"
        print(f"{_title(claim.slower)} / {_title(claim.faster)}: {ratio:.2f} ({bound}): {verdict}")
    if not judged:
        print(f"others took up to {share:.0%} of the machine, and {QUIET:.0%} is quiet: not judged")


def _title(case: Case) -> str:
    return f"{case.contender} at {case.rows / 1e6:g}M"


def record(
    options: argparse.Namespace,
    times: dict[Case, list[Time]],
    verdicts: Sequence[tuple[Claim, float]],
    judged: bool,
    shares: Sequence[float],
    versions: dict[str, str],
) -> dict[str, object]:
    """Everything measured, and what is needed to measure it again."""
    environment = Environment.here().model_dump()
    environment["versions"] |= versions
    return {
        "name": "step_time",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment,
        "fields": contender.FIELDS,
        "dim": contender.DIM,
        "batch": contender.BATCH,
        "hidden": contender.HIDDEN,
        "zipf_exponent": contender.EXPONENT,
        "distinct_batches": contender.BATCHES,
        "seed": 0,
        "threads": contender.CORES,
        "rounds": options.rounds,
        "share_taken_by_others": [round(share, 3) for share in shares],
        "judged": judged,
        "claims": [
            {
                "slower": claim.slower._asdict(),
                "faster": claim.faster._asdict(),
                "ratio": round(ratio, 3),
                "at_least": claim.at_least,
                "at_most": claim.at_most,
                "holds": claim.holds(ratio) if judged else None,
            }
            for claim, ratio in verdicts
        ],
        "milliseconds": [
            {
                **case._asdict(),
                "median": round(statistics.median(time.seconds for time in found) * 1e3, 2),
                "cpu_median": round(statistics.median(time.cpu for time in found) * 1e3, 2),
                "rounds": [round(time.seconds * 1e3, 2) for time in found],
            }
            for case, found in times.items()
        ],
    }


if __name__ == "__main__":
    main()
