"""The results page's section on rankers that read histories, from the records of benchmarks/rankers.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from rankers import DATA, LONG, METHODS, SEEDS, TUNING, Data, Negatives, Run
from table import joined, markdown, mean_of

from recsys.evaluation.comparison import Difference
from recsys.evaluation.record import RunRecord
from recsys.metrics import rela_impr

ASKED = 0.003
"""What DIN is to be above mean pooling in GAUC, where histories are informative."""
BASELINES = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "target_in_history": "target in history",
    "category_in_history": "category in history",
    "item_knn": "item-kNN",
}
COMPARED = (
    ("din", "mean"),
    ("din-softmax", "mean"),
    ("din-dice", "din"),
    ("din-softmax-dice", "din-softmax"),
    ("din-mba", "din"),
    ("din-softmax-mba", "din-softmax"),
    ("din-dice-mba", "din"),
    ("din-softmax-dice-mba", "din-softmax"),
    ("twin", "mean"),
    ("twin-projection", "twin"),
    ("dare", "twin"),
)
METRICS = ("gauc", "auc", "logloss")
REAL = "\\*"
"""Beside differences that are real in every seed."""


def sections() -> dict[str, str]:
    """What stands between which marks of the page: findings in words, and the tables."""
    logs = sorted((data for data in DATA.values() if _records(data, "mean")), key=lambda data: data.name)
    if not logs:
        return {"rankers": "Not run yet: `python benchmarks/rankers.py`.\n", "ranker-tables": ""}
    tables = [_gains([data for data in logs if data.negatives == negatives]) for negatives in get_args(Negatives)]
    tables += [_table(data) for data in logs]
    return {
        "rankers": f"{_tuned()}\n\n{_findings(logs)}",
        "ranker-tables": "\n".join(each for each in (*tables, _attention(logs)) if each),
    }


@cache
def _records(data: Data, method: str) -> dict[int, RunRecord]:
    """By seed."""
    runs = [Run(data, METHODS[method], seed) for seed in SEEDS]
    return {run.seed: RunRecord.read(run.path) for run in runs if run.path.exists()}


def signed(values: Sequence[float]) -> str:
    """Mean and standard deviation of differences."""
    mean = f"{statistics.fmean(values):+.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def gains(data: Data, method: str, base: str, metric: str = "gauc") -> list[float]:
    """Seed by seed."""
    one, other = _records(data, method), _records(data, base)
    shared = sorted(one.keys() & other.keys())
    return [one[seed].metrics["model"][metric] - other[seed].metrics["model"][metric] for seed in shared]


def _tuned() -> str:
    """How the learning rates were found."""
    if not TUNING.exists():
        return "Not tuned yet: `python benchmarks/rankers.py --tune`."
    found = json.loads(TUNING.read_text())
    said = "; ".join(
        f"{METHODS[name].shown} " + ", ".join(f"{max(aucs):.4f} at {rate}" for rate, aucs in rates.items())
        for name, rates in found.items()
    )
    return (
        f"Each method's learning rate is the one that validates best on amazon-beauty with uniform negatives, seed 0 "
        f"(AUC: {said}); its variants have the same. No other hyper-parameter was searched."
    )


def _findings(logs: Sequence[Data]) -> str:
    """Sentences that follow from the figures."""
    said = [_popularity(logs), _din(logs), *_dare(logs)]
    return "".join(f"- {sentence}\n" for sentence in said if sentence)


def _popularity(logs: Sequence[Data]) -> str:
    """What anybody has without a model."""
    said = []
    for negatives in get_args(Negatives):
        found = [_baseline(data, "popularity", "gauc") for data in logs if data.negatives == negatives]
        if found:
            span = " to ".join(dict.fromkeys(f"{value:.3f}" for value in (min(found), max(found))))
            said.append(f"{span} with {negatives} negatives")
    return f"Popularity alone has a GAUC of {joined(said)}."


def _din(logs: Sequence[Data]) -> str:
    """DIN's two modes, by log, against mean pooling."""
    said: dict[bool, list[str]] = {True: [], False: []}
    for data in logs:
        for name in ("din", "din-softmax"):
            found = gains(data, name, "mean")
            if found:
                said[statistics.fmean(found) >= ASKED].append(f"{_name(data)} ({METHODS[name].shown} {signed(found)})")
    parts = []
    if said[True]:
        parts.append(f"DIN is {ASKED} of GAUC or more above mean pooling on {joined(said[True])}.")
    if said[False]:
        parts.append(f"{'It' if parts else 'DIN'} is not on {joined(said[False])}.")
    return " ".join(parts)


def _dare(logs: Sequence[Data]) -> list[str]:
    """Against TWIN, the longest histories first."""
    said = []
    for which, chosen in (
        ("long histories", [data for data in logs if data.log in LONG]),
        ("short ones", [data for data in logs if data.log not in LONG]),
    ):
        found = {_name(data): gains(data, "dare", "twin") for data in chosen}
        found = {name: values for name, values in found.items() if values}
        if found:
            above = [f"{name} ({signed(values)})" for name, values in found.items() if statistics.fmean(values) > 0]
            below = [f"{name} ({signed(values)})" for name, values in found.items() if statistics.fmean(values) <= 0]
            parts = [f"above TWIN on {joined(above)}"] if above else []
            parts += (
                [f"not above it on {joined(below)}" if above else f"not above TWIN on {joined(below)}"] if below else []
            )
            said.append(f"On {which} DARE's GAUC is {', and '.join(parts)}. {_real(chosen)}".rstrip())
    return said


def _real(logs: Sequence[Data]) -> str:
    """How many of the single runs differ by more than chance, user by user."""
    found = [each for data in logs for each in _differences(data, "dare") if each.metric == "gauc" and not each.by]
    real = sum(each.real for each in found)
    return f"Real, user by user: {real} of {len(found)} runs." if found else ""


def _differences(data: Data, method: str) -> list[Difference]:
    return [each for record in _records(data, method).values() for each in record.differences]


def _gains(logs: Sequence[Data]) -> str:
    """What each change is worth on logs with the same negatives."""
    rows = []
    for method, base in COMPARED:
        found = [gains(data, method, base) for data in logs]
        if any(found):
            what = f"{METHODS[method].shown} − {METHODS[base].shown}"
            marks = [_mark(data, method, base) for data in logs]
            rows.append(
                [
                    what,
                    *(f"{signed(values)}{mark}" if values else "" for values, mark in zip(found, marks, strict=True)),
                ]
            )
    if not rows:
        return ""
    rows.append(
        ["*GAUC of categories alone*", *(f"{_baseline(data, 'category_in_history', 'gauc'):.4f}" for data in logs)]
    )
    text = (
        f"What each change is worth in GAUC, {logs[0].negatives} negatives ({REAL} real in every seed, user by user):\n"
    )
    return f"{text}\n{markdown(['', *(data.log for data in logs)], rows)}"


def _table(data: Data) -> str:
    """Methods and baselines of a log, by falling GAUC."""
    rows: dict[float, list[list[str]]] = {}
    for name, method in METHODS.items():
        records = list(_records(data, name).values())
        if records:
            found = {metric: [record.metrics["model"][metric] for record in records] for metric in METRICS}
            absent = [_absent(record, "model") for record in records]
            relative = "" if name == "mean" else f"{statistics.fmean(_relative(data, name)):+.1%}"
            cells = [method.shown, *map(mean_of, found.values()), mean_of(absent), relative, str(len(records))]
            rows.setdefault(statistics.fmean(found["gauc"]), []).append(cells)
    record = next(iter(_records(data, "mean").values()))
    for name, shown in BASELINES.items():
        values = [record.metrics[name].get(metric) for metric in METRICS]
        absent = [_absent(record, name)]
        rows.setdefault(values[0] or 0.0, []).append(
            [f"*{shown}*", *(mean_of([v]) for v in values), mean_of(absent), "", ""]
        )
    examples = record.counts["examples_evaluated"]
    text = f"**{data.log}, {data.negatives} negatives**, {examples:,} test examples:\n"
    columns = ["", "GAUC", "AUC", "logloss", "GAUC, category not in history", "RelaImpr", "seeds"]
    return f"{text}\n{markdown(columns, [row for gauc in sorted(rows, reverse=True) for row in rows[gauc]])}"


def _mark(data: Data, method: str, base: str) -> str:
    """Whether every seed's difference is real, user by user."""
    found = [each for each in _differences(data, method) if each.metric == "gauc" and not each.by]
    held = [each for each in found if each.against == base]
    return REAL if held and all(each.real for each in held) else ""


def _relative(data: Data, method: str) -> list[float]:
    """RelaImpr of the AUC over mean pooling, seed by seed."""
    one, other = _records(data, method), _records(data, "mean")
    shared = sorted(one.keys() & other.keys())
    return [rela_impr(one[seed].metrics["model"]["auc"], other[seed].metrics["model"]["auc"]) for seed in shared]


def _name(data: Data) -> str:
    return f"{data.log}/{data.negatives}"


def _baseline(data: Data, name: str, metric: str) -> float:
    """The same in every run."""
    return next(iter(_records(data, "mean").values())).metrics[name][metric]


def _absent(record: RunRecord, who: str) -> float | None:
    """GAUC where the category is not in the history."""
    for each in record.slices:
        if each.name == "absent" and who in each.metrics and "gauc" in each.metrics[who]:
            return each.metrics[who]["gauc"].value
    return None


def _attention(logs: Sequence[Data]) -> str:
    """What the searches find, and how the gradients of a shared table conflict."""
    rows = []
    for data in logs:
        twin, dare = (_diagnoses(data, name) for name in ("twin", "dare"))
        if twin and dare:
            searches = [[each["search"]["ndcg"] for each in found] for found in (twin, dare)]
            pulled = [each["gradients"]["items"] for each in twin]
            rows.append(
                [
                    _name(data),
                    f"{twin[0]['search']['random']:.4f}",
                    *(mean_of(values) for values in searches),
                    mean_of([each["conflicting"] for each in pulled]),
                    f"{statistics.fmean(each['dominance'] for each in pulled):.0f}",
                ]
            )
    if not rows:
        return ""
    text = "What TWIN's and DARE's searches find, and how TWIN's one table is pulled:\n"
    columns = ["", "random search", "TWIN's search", "DARE's search", "rows in conflict", "dominance"]
    return f"{text}\n{markdown(columns, rows)}"


def _diagnoses(data: Data, method: str) -> list[dict[str, Any]]:
    paths: list[Path] = [Run(data, METHODS[method], seed).attention_path for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]
