"""The results page's section on smaller tables, from the records of benchmarks/dimension_search.py."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from dimension_search import RELATIVE_LOSS, SIZES, STUDIES, Study
from table import joined, markdown

from recsys.search.frontier import FULL, SearchRecord, Trial, verdicts

SHOWN = {
    "optembed": "OptEmbed",
    "dnis": "DNIS",
    "gradual_pruning": "gradual pruning",
    "magnitude": "magnitude",
    "uniform": "narrower rows",
    "int8": "narrower rows, int8",
    "frequency_cut": "frequency cut",
    "mixed_dim": "mixed dimensions",
    "multiplexed": "multiplexed (no plan)",
}
SMALLER = 8
"""The goal: so many times smaller, within RELATIVE_LOSS."""


def sections() -> dict[str, str]:
    """What stands between which marks of the page."""
    found = [_of(study, records) for study in STUDIES if (records := study.records())]
    return {"dimension-search": "\n".join(found) or "Not run yet: `python benchmarks/dimension_search.py`.\n"}


def _of(study: Study, records: Mapping[str, SearchRecord]) -> str:
    """One data set: the frontier, and what follows from it."""
    first = next(iter(records.values()))
    metric, trials = first.monitor, _trials(records)
    full = next(trial for trial in trials if trial.method == FULL)
    seeds, reached = len(full.trained), f"{full.mean(metric, 'test'):.4f}{_margin(full, metric)}"
    head = (
        f"**{study.name}** ({seeds} seed{'s' * (seeds > 1)}, data `{first.data_digest[:12]}`): the full tables take "
        f"{first.full_bytes:,} bytes, and reach a test {metric} of {reached}. By how much of it smaller tables differ, "
        "± the 95% interval of their own mean:"
    )
    rows = [
        [
            SHOWN[method],
            *(_cell(method, record, full, metric, size) for size in SIZES),
            f"{record.cost[method]:.0f}",
        ]
        for method, record in records.items()
    ]
    columns = ["of the full bytes", *(f"{size:.0%}" for size in SIZES), "cost in trainings"]
    said = [_goal(trials, full, metric), *_searches(trials, metric), _memory(study)]
    missing = [SHOWN[method] for method in study.methods if method not in records]
    if missing:
        said.append(f"Not run yet: {joined(missing)}.")
    return f"{head}\n\n{markdown(columns, rows)}\n" + "".join(f"- {sentence}\n" for sentence in said if sentence)


def _trials(records: Mapping[str, SearchRecord]) -> list[Trial]:
    """Of all records; the full model's once."""
    found = {trial.name: trial for record in records.values() for trial in record.trials}
    return list(found.values())


def _loss(trial: Trial, full: Trial, metric: str) -> float:
    """Relative, of the test part; negative where the trial is better."""
    return 1.0 - trial.mean(metric, "test") / full.mean(metric, "test")


def _margin(trial: Trial, metric: str) -> str:
    margin = trial.margin(metric)
    return "" if margin is None else f" ± {margin:.4f}"


def _cell(method: str, record: SearchRecord, full: Trial, metric: str, size: float) -> str:
    """The relative change at a size, in bold within the goal; or the smallest bytes that can be had."""
    budget = round(size * record.full_bytes)
    trial = next((each for each in record.trials if each.name == f"{method}-{budget}"), None)
    if trial is None:
        return _floor(record, budget)
    loss, margin = _loss(trial, full, metric), trial.margin(metric)
    shown = f"{-loss:+.2%}" + ("" if margin is None else f" ± {margin / full.mean(metric, 'test'):.2%}")
    return f"**{shown}**" if loss <= RELATIVE_LOSS else shown


def _floor(record: SearchRecord, budget: int) -> str:
    """What a method says of a budget that it does not reach; two budgets may also lead to one plan."""
    why = next((text for name, text in record.unreachable.items() if name.endswith(f"-{budget}")), None)
    if why is None:
        return "as before"
    smallest = re.search(r"at least ([\d,]+)", why)
    return "not reached" if smallest is None else f"least {int(smallest[1].replace(',', '')) / record.full_bytes:.1%}"


def _goal(trials: Sequence[Trial], full: Trial, metric: str) -> str:
    """Which methods are so small within the loss, and the smallest of all."""
    within = [each for each in trials if each.method != FULL and _loss(each, full, metric) <= RELATIVE_LOSS]
    small = {each.method: each for each in within if SMALLER * each.bytes <= full.bytes}
    goal = f"{SMALLER} times smaller within {RELATIVE_LOSS:.1%} of {metric}"
    if not small:
        if not within:
            return f"No method is within {RELATIVE_LOSS:.1%} of {metric} at any of these sizes."
        best = min(within, key=lambda each: each.bytes)
        return f"No method is {goal}; {SHOWN[best.method]} is {full.bytes / best.bytes:.1f} times smaller."
    best = min(small.values(), key=lambda each: each.bytes)
    names = joined([SHOWN[method] for method in small])
    most = f"{SHOWN[best.method]} {full.bytes / best.bytes:.1f} times ({best.bytes:,} bytes)"
    return f"{goal[0].upper()}{goal[1:]}: {names}; {most}."


def _searches(trials: Sequence[Trial], metric: str) -> list[str]:
    """Each search against the best control of its size."""
    said = []
    for method in ("optembed", "dnis"):
        found = [each for each in verdicts(trials, metric) if each.search.startswith(method)]
        if found:
            beaten = sum(each.beats for each in found)
            worst, best = min(each.difference for each in found), max(each.difference for each in found)
            said.append(
                f"{SHOWN[method]} beats the best control of its size at {beaten} of {len(found)} sizes "
                f"(differences {worst:+.4f} to {best:+.4f} of {metric})."
            )
    return said


def _memory(study: Study) -> str:
    """What bundles take."""
    if not study.memory.exists():
        return ""
    taken = json.loads(study.memory.read_text())
    said = [
        f"{'the full model' if name == FULL else SHOWN[name.rpartition('-')[0]]} {each['disk'] / 1e6:.2f} MB on disk, "
        f"{each['resident'] / 1e6:.1f} MB in a fresh process"
        for name, each in taken.items()
    ]
    return f"Bundles (all variables, uncompressed; the process holds graph and vocabularies too): {joined(said)}."
