"""Do the searches see what is noise? A log whose fields' worth is known, all with the same frequencies.

    python benchmarks/planted_dimensions.py [--seeds 8]     searches for each seed, and writes the record

Six fields of as many VALUES, drawn alike: `pair_a` and `pair_b` move the label by a product of vectors of length 2,
`alone` by one number a value, `noise_1` to `noise_3` not at all. Each search cuts the tables to the same bytes; the
record says how many numbers each field keeps, and how sure it is that noise keeps less than signal (one-sided t test
over seeds, paired). Each field has a table of its own: DNIS selects by table and frequency, so of fields that are alike
in both it sees the size of their rows alone; `dnis, one table` says what is left then.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from recsys.dimension_search.dnis import SelectionSearch
from recsys.dimension_search.optembed import SupernetSearch
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.plan import EmbeddingPlan
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text
from recsys.search.config import DNISSearch, EvolutionConfig, OptEmbedSearch, SelectionConfig

RESULTS = Path(__file__).parent / "results" / "planted-dimensions.json"
SIGNAL, NOISE = ("pair_a", "pair_b", "alone"), ("noise_1", "noise_2", "noise_3")
ROWS, VALUES, RANK, DIM = 40_000, 300, 2, 8
SHARED = "dnis, one table"
BUDGET = 0.4
"""Of the full table's bytes."""
OPTEMBED = OptEmbedSearch(
    kind="optembed",
    alpha=3e-2,
    threshold_learning_rate=3e-2,
    decay=1e-4,
    evolution=EvolutionConfig(generations=10),
)
DNIS = DNISSearch(kind="dnis", selection=SelectionConfig(epochs=10))


def log(seed: int) -> pa.Table:
    """Labels by a logistic model."""
    rng = np.random.default_rng(seed)
    often = 1.0 / (np.arange(VALUES) + 5.0)
    drawn = {name: rng.choice(VALUES, ROWS, p=often / often.sum()) for name in (*SIGNAL, *NOISE)}
    a, b = rng.normal(size=(2, VALUES, RANK))
    effect = rng.normal(size=VALUES)
    logit = 1.5 * (a[drawn["pair_a"]] * b[drawn["pair_b"]]).sum(1) / RANK**0.5 + 1.2 * effect[drawn["alone"]]
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    return pa.table({**{name: [f"v{n}" for n in ids] for name, ids in drawn.items()}, "label": label})


def config(events: Path, seed: int, shared: bool) -> ExperimentConfig:
    """A small DCN on the log, with one table for all fields or one for each."""
    names = (*SIGNAL, *NOISE)
    table = {"dim": DIM, "initializer": {"kind": "uniform", "range": 0.05}}
    return ExperimentConfig.model_validate(
        {
            "name": f"planted-{seed}",
            "seed": seed,
            "data": {
                "source": {"kind": "files", "events": str(events)},
                "positives": {"column": "label", "at_least": 1},
                "negatives": {"column": "label", "at_most": 0},
                "split": {"kind": "random", "valid": 0.2, "test": 0.1},
                "seed": seed,
            },
            "schema": {
                "user": None,
                "item": None,
                "features": {name: {"kind": "categorical", "role": "context"} for name in names},
            },
            "embeddings": {
                "tables": {"field": table} if shared else dict.fromkeys(names, table),
                "features": {name: {"table": "field" if shared else name} for name in names},
                "optimizer": {"kind": "lazy_adam", "learning_rate": 0.005},
            },
            "model": {"kind": "ranker", "interaction": {"kind": "cross", "layers": 1}, "mlp": {"hidden": [32]}},
            "training": {
                "batch_size": 512,
                "epochs": 15,
                "dense_optimizer": {"kind": "adam", "learning_rate": 0.005},
                "early_stopping": {"patience": 2},
                "tensorboard": False,
            },
        }
    )


def searched(folder: Path, seed: int, shared: bool) -> dict[str, dict[str, float]]:
    """What each search keeps of each field, as a share of its numbers; of `shared` tables DNIS alone."""
    folder.mkdir(parents=True)
    pq.write_table(log(seed), folder / "log.parquet")
    shop = Workshop(Experiment(config(folder / "log.parquet", seed, shared), runs=folder / "runs"), folder / "at")
    full = shop.open(shop.with_tables("full", {}))
    full.train()
    budget = round(BUDGET * sum(4 * field.ids * field.dim for field in shop.fields))
    dnis = kept(SelectionSearch(shop, DNIS, full, str).plan(budget))
    if shared:
        return {SHARED: dnis}
    return {"dnis": dnis, "optembed": kept(SupernetSearch(shop, OPTEMBED, str).plan(budget))}


def kept(plan: EmbeddingPlan) -> dict[str, float]:
    """The share of each field's numbers that a plan keeps."""
    return {
        name: float(own.mask(table.dim).mean())
        for table in plan.tables.values()
        for name, own in table.vocabularies.items()
    }


def judged(found: list[Mapping[str, float]]) -> dict[str, Any]:
    """Means over seeds, and the test of signal - noise."""
    gaps = [np.mean([each[name] for name in SIGNAL]) - np.mean([each[name] for name in NOISE]) for each in found]
    means = {name: round(float(np.mean([each[name] for each in found])), 4) for name in (*SIGNAL, *NOISE)}
    p = float(stats.ttest_1samp(gaps, 0.0, alternative="greater").pvalue) if len(gaps) > 1 else None
    return {"kept": means, "gap": round(float(np.mean(gaps)), 4), "gaps": [round(float(g), 4) for g in gaps], "p": p}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    found: dict[str, list[Mapping[str, float]]] = {"optembed": [], "dnis": [], SHARED: []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            own, shared = (searched(Path(folder) / f"{seed}-{one}", seed, one) for one in (False, True))
            for method, shares in (own | shared).items():
                found[method].append(shares)
                print(seed, method, {name: round(share, 3) for name, share in shares.items()}, flush=True)
            record = {"budget": BUDGET, "seeds": seed + 1} | {method: judged(each) for method, each in found.items()}
            write_text(RESULTS, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
