"""The README's tables of figures, made from the records in benchmarks/results.

python benchmarks/table.py             prints them
python benchmarks/table.py --write     puts them between the marks in README.md
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.evaluation.record import RunRecord
from recsys.files import write_text

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
MARKS = "<!-- figures: python benchmarks/table.py --write -->\n", "<!-- /figures -->\n"
SHOWN = ("ndcg@10", "recall@10", "recall@100", "coverage@10", "auc", "logloss")


def tables(results: Path = RESULTS) -> str:
    """Every table for which there are records, as Markdown."""
    made = (
        _quality(results),
        _full_catalogue(results / "full_catalogue.json"),
        _step_time(results / "step_time.json"),
        _ranker_throughput(results / "ranker_throughput.json"),
        _preparation(results / "prepare.json"),
        _input(results / "input.json"),
    )
    return "\n".join(table for table in made if table)


def marked(page: str, marks: tuple[str, str] = MARKS) -> tuple[str, str, str]:
    """A page before, between and after the marks."""
    before, _, rest = page.partition(marks[0])
    between, _, after = rest.partition(marks[1])
    return before, between, after


def joined(parts: Iterable[str]) -> str:
    """As a sentence lists them."""
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def write_marked(path: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Puts `text` between the marks of a page."""
    before, _, after = marked(path.read_text(encoding="utf-8"), marks)
    write_text(path, before + marks[0] + text + marks[1] + after)


def _quality(results: Path) -> str:
    """Test metrics over the seeds of a config: NAME-seed*.json."""
    runs: dict[str, list[RunRecord]] = defaultdict(list)
    for path in sorted(results.glob("*-seed*.json")):
        runs[path.stem.rpartition("-seed")[0]].append(RunRecord.read(path))
    rows = []
    for name, records in sorted(runs.items()):
        seeds = ", ".join(str(seed) for seed in sorted(record.seed for record in records))
        for who in records[0].metrics:
            found = {metric: [record.metrics[who].get(metric) for record in records] for metric in SHOWN}
            rows.append([f"`configs/{name}.yaml`", seeds, who, *(mean_of(values) for values in found.values())])
    return markdown(["config", "seeds", "", *SHOWN], rows)


def mean_of(values: Sequence[float | None]) -> str:
    """Mean and standard deviation of what is there."""
    present = [value for value in values if value is not None]
    if not present:
        return ""
    mean = f"{statistics.fmean(present):.4f}"
    return mean if len(set(present)) == 1 else f"{mean} ± {statistics.stdev(present):.4f}"


def _full_catalogue(path: Path) -> str:
    """Against TFRS, at every relevant item as its tutorials evaluate."""
    if not path.exists():
        return ""
    record: dict[str, Any] = json.loads(path.read_text())
    rows = [
        [
            name,
            f"{row['seconds']:.0f}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['memory_gib']:.2f}",
            *(f"{row[key]:.1f}" if key in row else "" for key in ("ratio_every_pair", "ratio_one_a_user")),
        ]
        for name, row in record["medians"].items()
    ]
    what = f"{record['users']:,} users, {record['items']:,} items, width {record['dim']}"
    what += f" (others took {max(record['share_taken_by_others']):.0%} of the machine)"
    columns = [what, "s", "CPU s", "peak GiB", "times recsys", "if each user had one relevant item"]
    return markdown(columns, rows)


def _step_time(path: Path) -> str:
    """Milliseconds a step, with Zipf ids."""
    if not path.exists():
        return ""
    record: dict[str, Any] = json.loads(path.read_text())
    median = {(run["contender"], run["rows"]): run["median"] for run in record["milliseconds"] if run["law"] == "zipf"}
    sizes = sorted({rows for _, rows in median})
    rows = [
        [contender, *(f"{median[contender, size]:.0f}" if (contender, size) in median else "" for size in sizes)]
        for contender in dict.fromkeys(contender for contender, _ in median)
    ]
    what = f"ms a step: {record['fields']} fields, width {record['dim']}, batch {record['batch']:,}, Zipf ids"
    return markdown([what, *(f"{size / 1e6:g}M rows" for size in sizes)], rows)


def _ranker_throughput(path: Path) -> str:
    return ranker_throughput(list(json.loads(path.read_text())["cases"].values())) if path.exists() else ""


def ranker_throughput(cases: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds a step, how many times ours the peers take, and ours relative to the bare matrix products."""
    verdict = {True: "", False: ", missed", None: ", not judged"}
    names = list(dict.fromkeys(name for case in cases for name in case["milliseconds"]))
    peers = list(dict.fromkeys(claim["peer"] for case in cases for claim in case["claims"]))
    rows = []
    for case in cases:
        times = {name: found["median"] for name, found in case["milliseconds"].items()}
        claims = [
            f"{claim['ratio']:.1f} (≥ {claim['at_least']:g}{verdict[claim['holds']]})" for claim in case["claims"]
        ]
        products = case["ratio_to_products"]
        rows.append(
            [
                f"`{case['model']}`, {case['rows'] / 1e6:g}M rows",
                *(f"{times[name]:.0f}" if name in times else "" for name in names),
                *claims,
                f"{products:.2f}" if products else "",
            ]
        )
    compared = [*(f"{peer} / recsys" for peer in peers), "recsys / products"]
    return markdown(["training: ms a step of 4,096 examples", *names, *compared], rows)


def _preparation(path: Path) -> str:
    if not path.exists():
        return ""
    rows = [
        [
            f"prepare {run['name']}",
            f"{run['counts']['events']:,}",
            run["engine"],
            f"{run['seconds']:.0f}",
            f"{run['peak_gib']:.2f}",
            f"{run['load_at_end']:.1f} on {run['cores']} cores",
        ]
        for run in json.loads(path.read_text())
    ]
    return markdown(["", "events", "engine", "seconds", "peak GiB", "load average at the end"], rows)


def _input(path: Path) -> str:
    if not path.exists():
        return ""
    record: dict[str, Any] = json.loads(path.read_text())
    rows = [
        [name, f"{speed / 1e6:.2f}", f"{record['ratio_to_scan'][name]:.2f}"]
        for name, speed in record["rows_per_second"].items()
    ]
    columns = f"read {record['context_features']} columns: order, batch"
    load = f"load per core before: {record['load_per_core_before']}"
    return markdown([columns, "M rows/s (median)", f"relative to the bare scan ({load})"], rows)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing if it has no rows."""
    lines = [" | ".join(cells) for cells in rows]
    if not lines:
        return ""
    header = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    return "".join(f"| {line} |\n" for line in [*header, *lines])


def main() -> None:
    if "--write" not in sys.argv[1:]:
        print(tables(), end="")
        return
    write_marked(README, tables())


if __name__ == "__main__":
    main()
