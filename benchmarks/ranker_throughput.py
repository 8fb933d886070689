"""Training throughput of rankers against FuxiCTR and DeepCTR on the shape of Criteo's data.

    python benchmarks/ranker_throughput.py [--models fm mlp] [--sizes 1000000] [--rounds 5] [--fresh] [--force]

13 numbers, 26 categorical fields of width 16 whose sizes are in Criteo's proportions, ids by Zipf's law (exponent 1.1),
batches of 4,096 that stand in memory; vocabularies of 1M and 10M rows in all. FM over 39 fields; an MLP 256-128;
DCN-V2, 3 crosses of the 416 categorical numbers beside that MLP; DIN with 50 events, and the MLP; AutoInt, 3 layers of
2 heads of 32 over 39 fields. Where numbers are no fields, they stand beside them. Everyone trains with Adam: recsys
moves the rows that a batch reads, the peers move all rows at every step, as they do by default.

Contenders have a process for each case, a model and a vocabulary; the peers an environment each in the cache folder
(made by uv). In a case all of them take turns, round after round; medians count. The loss that each one ends with has
to be below the one it began with. What stands in the record is not measured again, so a run goes on after a kill;
--fresh begins anew. A whole run takes about 15 minutes on 2 cores, and 14 GiB of memory.

While others load the machine nothing is judged: it says so, and ends with status 2 (at once, unless --force has it
measure all the same). Status 1: a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

from contest import HERE, QUIET, Contender, environment_of, others
from peers import criteo
from peers.criteo import MODELS, Case, Model
from table import ranker_throughput, write_marked

from recsys.evaluation.record import Environment
from recsys.files import write_text

RESULTS = HERE / "results" / "ranker_throughput.json"
PAGE = HERE.parent / "docs" / "methods" / "rankers.md"
MARKS = "<!-- speed: python benchmarks/ranker_throughput.py --write -->\n", "<!-- /speed -->\n"
SIZES = (1_000_000, 10_000_000)
SMALL, LARGE = SIZES
BLOCK = 0.6
"""Seconds of steps between two looks at the clock."""
WARM_UP = 6
"""Steps before the clock counts; the first of them tells the loss to begin with."""
OURS, PRODUCTS, PEERS = "recsys", "matrix products", ("FuxiCTR", "DeepCTR")
BFLOAT16, XLA = f"{OURS}, bfloat16", f"{OURS}, XLA"


class Target(NamedTuple):
    """How many times ours the peers take, at least, by the vocabulary."""

    small: float
    large: float


EMBEDDING, PRODUCT = Target(3.0, 10.0), Target(1.3, 3.0)
"""Where the embeddings take most of the time, and where the matrix products do."""
TARGETS: dict[Model, Target] = {
    "fm": EMBEDDING,
    "mlp": EMBEDDING,
    "dcn_v2": PRODUCT,
    "din": PRODUCT,
    "autoint": PRODUCT,  # the goal at 1M rows is 3
}


class Times(NamedTuple):
    """Of one contender in one case."""

    seconds: list[float]
    """Of a step, in each round."""
    cpu: list[float]
    """Likewise, of all threads' work: it hardly depends on what else runs on the machine."""
    first_loss: float
    last_loss: float

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.seconds)


def contenders() -> list[Contender]:
    """Ours first; then what it could do, the peers, and the bare products."""
    # The proxy is none: DeepCTR would ask PyPI for its newest version.
    legacy = {"TF_USE_LEGACY_KERAS": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return [
        Contender(OURS, ["peers.criteo_engine", "ranker"]),
        Contender(BFLOAT16, ["peers.criteo_engine", "ranker", "mixed_bfloat16"]),
        Contender(XLA, ["peers.criteo_engine", "ranker", "xla"], largest=SMALL),
        Contender("FuxiCTR", ["peers.fuxictr.in_torch"], partial(environment_of, "fuxictr")),
        Contender("DeepCTR", ["peers.deepctr.in_keras"], partial(environment_of, "deepctr"), environment=legacy),
        Contender(PRODUCTS, ["peers.criteo_engine", "products"], largest=SMALL),
    ]


def measure(case: Case, contenders: Sequence[Contender], rounds: int) -> dict[str, Times]:
    """A step's time of everyone, once a round."""
    steps, found = {}, {}
    for each in contenders:
        first = _train(each, case, 1)["loss"]  # makes the model, traces, touches memory
        seconds = _train(each, case, WARM_UP - 1)["seconds"]
        steps[each.name] = max(1, round(BLOCK / seconds))
        found[each.name] = Times([], [], first, first)
    for _ in range(rounds):
        for each in contenders:
            answer, times = _train(each, case, steps[each.name]), found[each.name]
            times.seconds.append(answer["seconds"])
            times.cpu.append(answer["cpu"])
            found[each.name] = times._replace(last_loss=answer["loss"])
    for each in contenders:
        if each.name != PRODUCTS:
            _learns(each, case, found[each.name])
    return found


def _learns(each: Contender, case: Case, times: Times) -> None:
    """That its loss falls, if need be after some more steps."""
    last = times.last_loss
    for _ in range(4):
        if last < times.first_loss:
            return
        last = _train(each, case, 16)["loss"]
    raise SystemExit(f"{each.name} does not learn {case.model}: its loss was {times.first_loss:.4f}, and is {last:.4f}")


def _competes(each: Contender, case: Case) -> bool:
    return case.rows <= each.largest and not (each.name == PRODUCTS and case.model == "fm")  # it has none


def _train(each: Contender, case: Case, steps: int) -> dict[str, float]:
    return each.ask({**case._asdict(), "steps": steps})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="rows of all fields together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="measure again what the record holds")
    parser.add_argument("--force", action="store_true", help="measure although the machine is loaded, judge nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record")
    parser.add_argument("--write", action="store_true", help="only put the record's table into docs/methods/rankers.md")
    options = parser.parse_args()
    if options.write:
        write_marked(PAGE, recorded(), MARKS)
        return
    cases = [Case(model, rows) for rows in options.sizes for model in options.models]
    record = {} if options.fresh or not options.out.exists() else json.loads(options.out.read_text())
    known: dict[str, Any] = record.get("cases", {})
    versions: dict[str, str] = record.get("environment", {}).get("versions", {})
    missing = [case for case in cases if _key(case) not in known]
    if missing:
        with others() as at_start:
            sleep(3)
        if at_start.share > QUIET and not options.force:
            print(
                f"others take {at_start.share:.0%} of the machine ({QUIET:.0%} is quiet): nothing measured; see --force"
            )
            raise SystemExit(2)
        for case in missing:
            # Fresh processes each time: all models of 10M rows, with Adam's moments, do not fit into memory together.
            with ExitStack() as stack:
                everyone = [stack.enter_context(each) for each in contenders() if _competes(each, case)]
                with others() as load:
                    found = measure(case, everyone, options.rounds)
            versions |= {name: version for each in everyone for name, version in each.versions.items()}
            known[_key(case)] = _entry(case, found, load.share)
            write_text(options.out, json.dumps({**_head(versions), "cases": known}, indent=1) + "\n")
            print(f"{_key(case)}: measured; others took {load.share:.0%}", flush=True)
    chosen = [known[_key(case)] for case in cases]
    print(ranker_throughput(chosen), end="")
    verdicts = [claim["holds"] for entry in chosen for claim in entry["claims"]]
    if None in verdicts:
        print(f"not judged (-) where others took more than {QUIET:.0%} of the machine")
    raise SystemExit(1 if False in verdicts else 2 if None in verdicts and not options.force else 0)


def recorded() -> str:
    """The table of the record in the project; nothing if there is none."""
    return ranker_throughput(list(json.loads(RESULTS.read_text())["cases"].values())) if RESULTS.exists() else ""


def _key(case: Case) -> str:
    return f"{case.model} {case.rows}"


def _entry(case: Case, found: Mapping[str, Times], share: float) -> dict[str, Any]:
    """A case's part of the record."""
    ours, target = found[OURS].median, TARGETS[case.model]
    at_least = target.small if case.rows <= SMALL else target.large
    claims = []
    for peer in PEERS:
        ratio = found[peer].median / ours
        holds = ratio >= at_least if share <= QUIET else None
        claims.append({"peer": peer, "ratio": round(ratio, 3), "at_least": at_least, "holds": holds})
    products = found[PRODUCTS].median if PRODUCTS in found else None
    return {
        **case._asdict(),
        "share_taken_by_others": round(share, 3),
        "claims": claims,
        "ratio_to_products": round(ours / products, 3) if products else None,
        "milliseconds": {
            name: {
                "median": round(times.median * 1e3, 2),
                "cpu_median": round(statistics.median(times.cpu) * 1e3, 2),
                "rounds": [round(seconds * 1e3, 2) for seconds in times.seconds],
                "losses": [round(times.first_loss, 4), round(times.last_loss, 4)],
            }
            for name, times in found.items()
        },
    }


def _head(versions: Mapping[str, str]) -> dict[str, Any]:
    """What is needed to measure it again."""
    environment = Environment.here().model_dump()
    environment["versions"] = versions | environment["versions"]
    return {
        "name": "ranker_throughput",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment,
        "batch": criteo.BATCH,
        "distinct_batches": criteo.BATCHES,
        "dim": criteo.DIM,
        "fields": criteo.FIELDS,
        "numbers": criteo.NUMBERS,
        "history": criteo.HISTORY,
        "hidden": criteo.HIDDEN,
        "zipf_exponent": criteo.EXPONENT,
        "seed": 0,
        "threads": criteo.CORES,
    }


if __name__ == "__main__":
    main()
