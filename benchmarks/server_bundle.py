"""A bundle for `server.py`: a million items, a two_tower, and DIN over histories of 50 behind it.

    python benchmarks/server_bundle.py FOLDER [--items 1000000] [--users 50000]

Writes `FOLDER/runs/served/bundle/1`. The log is drawn: its users like a few categories each. Both models train one
epoch, since how long an answer takes does not depend on how good it is. Items come in clumps, as catalogues do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.experiment import Experiment
from recsys.files import write_text
from recsys.two_stages import TwoStages

EVENTS, CATEGORIES, TASTES = 60, 2_000, 5
"""Events of a user, categories of items, and those that a user likes."""
CONFIG = """
name: NAME
seed: 0
data:
  source: {kind: files, events: events.parquet, items: items.parquet}
  sampled_negatives: {per_positive: 1, distribution: uniform}
  split: {kind: leave_last_out}
schema:
  user: user_id
  item: item_id
  timestamp: time
  title: title
  features:
    item_id: {kind: categorical, role: item}
    category: {kind: categorical, role: item}
    history: {kind: sequence, of: item_id, max_length: 50}
    categories: {kind: sequence, of: category, max_length: 50}
    user_id: {kind: categorical, role: user}
embeddings:
  tables:
    item: {dim: 32}
    category: {dim: 32}
    user: {dim: 16}
  features:
    item_id: {table: item}
    history: {table: item, pooling: POOLING}
    category: {table: category}
    categories: {table: category, pooling: POOLING}
    user_id: {table: user}
model: MODEL
training: {batch_size: 4096, epochs: 1}
"""
MODELS = {
    "served": (
        "mean",
        "{kind: two_tower, query: {hidden: [128], output_dim: 64}, item: {hidden: [128], output_dim: 64}}",
    ),
    "ranker": ("none", "{kind: ranker, sequence: {kind: din, hidden: [80, 40]}, mlp: {hidden: [200, 80]}}"),
}
"""Run -> how it pools histories, and its model."""


def write_log(folder: Path, items: int, users: int) -> None:
    """Events of users who like a few categories."""
    rng = np.random.default_rng(0)
    per_category = -(-items // CATEGORIES)
    tastes = rng.integers(CATEGORIES, size=(users, TASTES))
    chosen = np.take_along_axis(tastes, rng.integers(TASTES, size=(users, EVENTS)), 1)
    item = np.minimum(chosen * per_category + rng.integers(per_category, size=(users, EVENTS)), items - 1)
    day = rng.integers(1_000_000, size=(users, EVENTS))
    events = {"user_id": np.repeat(np.arange(users), EVENTS), "item_id": item.ravel(), "time": np.sort(day, 1).ravel()}
    pq.write_table(pa.table(events), folder / "events.parquet")
    ids = np.arange(items)
    facts = {"item_id": ids, "category": ids // per_category, "title": [f"Item {each}" for each in ids]}
    pq.write_table(pa.table(facts), folder / "items.parquet")


def write_bundle(folder: Path, items: int, users: int) -> Path:
    """The bundle's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_log(folder, items, users)
    experiments = {}
    for name, (pooling, model) in MODELS.items():
        text = CONFIG.replace("NAME", name).replace("POOLING", pooling).replace("MODEL", model)
        write_text(folder / f"{name}.yaml", text)
        experiments[name] = Experiment.from_yaml(folder / f"{name}.yaml", (), folder / "runs")
        experiments[name].train()
    return TwoStages(experiments["served"], experiments["ranker"]).export()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    arguments = parser.parse_args()
    print(write_bundle(arguments.folder, arguments.items, arguments.users))


if __name__ == "__main__":
    main()
