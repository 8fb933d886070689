"""Every table method on MovieLens-1M: quality against the bytes that a bundle holds.

    RECSYS_DATA=... python benchmarks/methods.py           trains what has no record yet, most telling first
    python benchmarks/methods.py --write                   the table in docs/methods/README.md

Every run is the model of configs/movielens-1m-unified.yaml with another table for all six features, one seed. The
records are in benchmarks/results/methods.json; a killed study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from table import markdown, write_marked

from recsys.files import write_text

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "movielens-1m-unified.yaml"
RESULTS = Path(__file__).parent / "results" / "methods.json"
PAGE = ROOT / "docs" / "methods" / "README.md"
MARKS = "<!-- figures: python benchmarks/methods.py --write -->\n", "<!-- /figures -->\n"

TABLES = (
    "{method: full, dim: 32}",
    "{method: mgqe, dim: 32, parts: 4}",
    "{method: mixed_dim, dim: 32, alpha: 0.1}",
    "{method: full, dim: 8}",
    "{method: full, dim: 32, precision: int8}",
    "{method: mixed_dim, dim: 32, alpha: 0.2}",
    "{method: full, dim: 4}",
    "{method: mgqe, dim: 32, parts: 8}",
    "{method: full, dim: 2}",
    "{method: mgqe, dim: 32, parts: 2}",
    "{method: multiplexed, dim: 32, rows: 3291}",
    "{method: mixed_dim, dim: 32, alpha: 0.3}",
    "{method: full, dim: 16}",
    "{method: hashed, dim: 32, rows: 3291}",
    "{method: multiplexed, dim: 32, rows: 1234}",
    "{method: hashed, dim: 32, rows: 1234}",
    "{method: full, dim: 8, precision: int8}",
)
"""The most telling first. 3,291 rows are a quarter of the vocabularies' 13,164 (as many bytes as dim 8), 1,234 about a
tenth.
"""


def study(runs: Path, first: int | None) -> None:
    """Trains what has no record."""
    for table in TABLES[:first]:
        records = read()
        if table not in records:
            records[table] = train(table, runs / f"methods-{TABLES.index(table)}")
            write_text(RESULTS, json.dumps(records, indent=2) + "\n")
            print(f"{table:45}", records[table]["metrics"], f"{records[table]['served_bytes']:,}", flush=True)


def read() -> dict[str, dict[str, Any]]:
    """The records by table."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def train(table: str, run: Path) -> dict[str, Any]:
    """From the YAML to the record: test metrics of the model as a bundle serves it, and its tables' bytes there."""
    from recsys._compat import keras
    from recsys.evaluation import evaluate_model
    from recsys.experiment import Experiment

    keras.backend.clear_session()
    overrides = [f"name={run.name}", f"embeddings.tables.unified={table}", "training.tensorboard=false"]
    experiment = Experiment.from_yaml(CONFIG, overrides, run.parent)
    position = experiment.train()
    served = experiment.model.embeddings.serve()
    parts = experiment.prepared, "test", experiment.config.evaluation
    found = evaluate_model(experiment.model, *parts, validation=True, served=served)
    return {
        "metrics": found.metrics["model"],
        "served_bytes": sum(v.dtype.size * v.shape.num_elements() for rows in served.values() for v in rows.variables),
        "epochs": position.epoch,
        "seconds": experiment.evaluate().cost.seconds["train"],
        "seed": experiment.config.seed,
    }


def frontier() -> str:
    """All records, by falling bytes."""
    records = sorted(read().items(), key=lambda record: -record[1]["served_bytes"])
    rows = [
        [
            f"`{table[1:-1]}`",
            f"{record['served_bytes']:,}",
            f"{record['metrics']['auc']:.4f}",
            f"{record['metrics']['logloss']:.4f}",
        ]
        for table, record in records
    ]
    return markdown(["table", "bytes in a bundle", "AUC", "logloss"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into the docs page, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--first", type=int, help="only so many of the tables")
    options = parser.parse_args()
    if options.write:
        write_marked(PAGE, frontier(), MARKS)
    else:
        study(options.runs, options.first)


if __name__ == "__main__":
    main()
