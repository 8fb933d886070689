"""docs/results.md: its figures, and what is said of them, made of the stored runs in benchmarks/results.

python benchmarks/results_page.py             prints it
python benchmarks/results_page.py --write     writes it

What has no record yet is left out, or said to be missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import autoint
import dimension_tables
import embedding_quality
import long_histories
import methods
import ranker_tables
import retrieval
import ssl_study
import table
import tuning
import unified_embedding
from table import joined, markdown, write_marked

from recsys.evaluation.record import RunRecord

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "results.md"

STUDIES = {
    "rankers": "python benchmarks/rankers.py",
    "autoint": "python benchmarks/autoint.py",
    "retrieval": "python benchmarks/retrieval.py",
    "long-histories": "python benchmarks/long_histories.py",
    "unified-embedding": "python benchmarks/unified_embedding.py",
    "embedding-quality": "python benchmarks/embedding_quality.py",
    "ssl": "python benchmarks/ssl_study.py",
}
"""Folders of records, and what makes them."""
CONFIGS = ("movielens-1m", "movielens-1m-ranker")
"""Configs whose records `recsys run` made."""


def marks(name: str) -> tuple[str, str]:
    """Around a part of the page."""
    return f"<!-- {name}: python benchmarks/results_page.py --write -->\n", f"<!-- /{name} -->\n"


def sections() -> dict[str, str]:
    """What stands between which marks."""
    unified, _ = unified_embedding.sections().values()
    quality = embedding_quality.pages()
    return {
        **ranker_tables.sections(),
        "autoint": _autoint(),
        "long-histories": _long_histories(),
        "long-search": _long_search(RESULTS / "long_search.json"),
        "retrieval": _retrieval(),
        "tuning": tuning.section(),
        "retrieval-study": retrieval.section(),
        **ssl_study.sections(),
        "index": _index(),
        "exact-search": _exact_search(RESULTS / "exact_search.json"),
        "serving": _serving(),
        **dimension_tables.sections(),
        "methods": methods.frontier(),
        "multiplexed": unified.partition("\n\n")[2],
        "precision": quality[embedding_quality.METHODS / "quantized.md"],
        "lazy": quality[embedding_quality.METHODS / "lazy_optimizers.md"],
        "speed": _speed(),
        "provenance": _provenance(),
    }


def _autoint() -> str:
    found = {name: _aucs("autoint", name, autoint.SEEDS) for name in autoint.VARIANTS}
    if not any(found.values()):
        return "Not run yet: `python benchmarks/autoint.py`.\n"
    said = [
        _said("The deep part beside it changes the AUC by", found["autoint-plus"], found["autoint"]),
        _said("Without its residual the AUC changes by", found["autoint-no-residual"], found["autoint"]),
    ]
    return autoint.table() + "".join(f"\n{each}\n" for each in said if each)


def _aucs(folder: str, name: str, seeds: Sequence[int]) -> dict[int, float]:
    paths = {seed: RESULTS / folder / f"{name}-seed{seed}.json" for seed in seeds}
    return {seed: RunRecord.read(path).metrics["model"]["auc"] for seed, path in paths.items() if path.exists()}


def _said(what: str, one: dict[int, float], other: dict[int, float]) -> str:
    """A difference seed by seed, in words; nothing without seeds in common."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return ""
    return (
        f"{what} {ranker_tables.signed([one[seed] - other[seed] for seed in seeds])} (seeds {joined(map(str, seeds))})."
    )


def _long_histories() -> str:
    if not any(run.path.exists() for run in long_histories.plan()):
        return "Not run yet: `python benchmarks/long_histories.py`.\n"
    return long_histories.table()


def _long_search(path: Path) -> str:
    if not path.exists():
        return "Not run yet: `python benchmarks/long_search.py`.\n"
    import long_search  # with TensorFlow

    return long_search.table(json.loads(path.read_text()))


def _index() -> str:
    """The index beside others, and searches through filters."""
    import index  # with psutil, as the next one

    return index.pages()


def _exact_search(path: Path) -> str:
    if not path.exists():
        return "Not run yet: `python benchmarks/exact_search.py`.\n"
    import exact_search

    return exact_search.table(json.loads(path.read_text()))


def _serving() -> str:
    """A server under load."""
    import server

    return server.page()


def _retrieval() -> str:
    """Full-catalogue ranking, best first."""
    shown = ("ndcg@10", "recall@10", "recall@100", "coverage@10")
    records = _seeds("movielens-1m")
    rows = []
    for who in sorted(records[0].metrics, key=lambda who: -records[0].metrics[who]["ndcg@10"]):
        values = [table.mean_of([record.metrics[who].get(name) for record in records]) for name in shown]
        rows.append(["two towers" if who == "model" else who, *values])
    return markdown(["", *shown], rows)


def _seeds(name: str) -> list[RunRecord]:
    return sorted((RunRecord.read(path) for path in RESULTS.glob(f"{name}-seed*.json")), key=lambda record: record.seed)


def _speed() -> str:
    """Whatever has been timed."""
    parts = [part.strip("\n") for part in table.tables().split("\n\n")]
    return "\n\n".join(part for part in parts if part and not part.startswith("| config")) + "\n"


def _provenance() -> str:
    """Of every study: its command, its data, its configs and seeds."""
    rows = [
        [str(folder.relative_to(RESULTS)), *_where_from(_stored(folder)), f"`{command}`"]
        for name, command in STUDIES.items()
        for folder in _folders(RESULTS / name)
    ]
    rows += [[name, *_where_from(_seeds(name)), f"`recsys run configs/{name}.yaml --set seed=N`"] for name in CONFIGS]
    columns = ["records", "runs", "seeds", "config digest", "data digest", "recsys", "newest", "command"]
    return markdown(columns, rows)


def _folders(path: Path) -> list[Path]:
    """Those with records."""
    return sorted({found.parent for found in path.rglob("*-seed*.json")}) if path.exists() else []


def _stored(folder: Path) -> list[RunRecord]:
    """The records of a folder; some studies keep more beside them, in the same file or in one of its own."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    runs = [raw.get("run", raw) for raw in found]
    return [RunRecord.model_validate_json(json.dumps(raw)) for raw in runs if "config_digest" in raw]


def _where_from(records: Sequence[RunRecord]) -> list[str]:
    configs = "".join(sorted(record.config_digest for record in records))
    return [
        str(len(records)),
        joined(map(str, sorted({record.seed for record in records}))),
        f"`{hashlib.sha256(configs.encode()).hexdigest()[:12]}`",
        ", ".join(f"`{each[:12]}`" for each in sorted({record.data_digest for record in records})),
        joined(sorted({record.environment.versions["recsys"] for record in records})),
        max(record.created for record in records).strftime("%Y-%m-%d"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write them into docs/results.md")
    if parser.parse_args().write:
        for name, text in sections().items():
            write_marked(PAGE, text, marks(name))
    else:
        print("\n".join(sections().values()), end="")


if __name__ == "__main__":
    main()
