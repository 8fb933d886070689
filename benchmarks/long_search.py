"""What a request costs that ranks K candidates for one user with a long history: the history worked on once, against
once for every candidate.

    python benchmarks/long_search.py [--rounds 7]    measures, and writes the record
    python benchmarks/long_search.py --write         the table in docs/methods

DARE in a whole ranker (representations of width 16, a search of the best 20, an MLP 64-32), on one thread: `once` is
`Ranker.candidate_logits`, `pairs` is `Ranker.logits` of as many pairs, in blocks of at most a million events. Beside
them the parts that grow with the history: the products d_a T K, and the search of the best 20 in K rows of T. All take
turns, round after round; what counts are medians over the rounds, of CPU seconds, which hardly depend on what else
runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from table import markdown, write_marked

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.interactions.attention import search
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker

RESULTS = Path(__file__).parent / "results" / "long_search.json"
PAGE = Path(__file__).parents[1] / "docs" / "methods" / "dare.md"
MARKS = "<!-- figures: python benchmarks/long_search.py --write -->\n", "<!-- /figures -->\n"

LENGTHS, WIDTHS, CANDIDATES = (200, 1_000, 2_000, 10_000), (4, 16, 64), (100, 500)
ITEMS, TOP_K, REPRESENTED = 50_000, 20, 16
EVENTS_AT_ONCE = 1_000_000


def ranker(length: int, width: int) -> Ranker:
    """DARE over histories of this length, with a search of this width."""
    embeddings = {
        "tables": {"item": {"dim": REPRESENTED}, "search": {"dim": width}},
        "features": {
            "item": {"table": "item", "attention_table": "search"},
            "history": {"table": "item", "attention_table": "search", "pooling": "none"},
        },
    }
    config = {"kind": "ranker", "sequence": {"kind": "attention", "top_k": TOP_K}, "mlp": {"hidden": [64, 32]}}
    features = {
        "item": CategoricalInfo(role="item", rows=ITEMS, oov_rows=1),
        "history": SequenceInfo(of="item", max_length=length, age=False),
    }
    return Ranker(RankerConfig.model_validate(config), EmbeddingsConfig.model_validate(embeddings), features)


def works(length: int, width: int, candidates: int) -> dict[str, Callable[[], object]]:
    """What is measured."""
    model, rng = ranker(length, width), np.random.default_rng(0)
    history = rng.integers(2, ITEMS, (1, length)).astype(np.int32)
    item = rng.integers(2, ITEMS, candidates).astype(np.int32)
    block = max(1, EVENTS_AT_ONCE // length)
    once = tf.function(model.candidate_logits)
    pairs = tf.function(model.logits)

    def batch(items: np.ndarray, repeats: int) -> dict[str, Any]:
        return {
            "query": {"history": tf.constant(np.repeat(history, repeats, 0))},
            "item": {"item": tf.constant(items)},
        }

    one = batch(item, 1)
    blocks = [batch(item[at : at + block], len(item[at : at + block])) for at in range(0, candidates, block)]
    expected = np.concatenate([pairs(each).numpy() for each in blocks])
    np.testing.assert_allclose(once(one)["label"].numpy(), expected, rtol=1e-4, atol=1e-5)
    keys, queries = (tf.constant(rng.normal(size=(n, width)).astype(np.float32)) for n in (length, candidates))
    scores, mask = tf.matmul(queries, keys, transpose_b=True), tf.ones([length], tf.bool)
    multiply = tf.function(lambda q, k: tf.matmul(q, k, transpose_b=True))
    find = tf.function(lambda s: search(s, mask, TOP_K))
    return {
        "once": lambda: once(one),
        "pairs": lambda: [pairs(each) for each in blocks],
        "products": lambda: multiply(queries, keys),
        "search": lambda: find(scores),
    }


def measure(length: int, width: int, candidates: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each work, and the median ratio of pairs to once."""
    keras.backend.clear_session()
    each = works(length, width, candidates)
    seconds = defaultdict[str, list[float]](list)
    for _ in range(rounds + 1):  # the first warms up
        for name, work in each.items():
            start = process_time()
            work()
            seconds[name].append(process_time() - start)
    ratios = [p / o for p, o in zip(seconds["pairs"][1:], seconds["once"][1:], strict=True)]
    found = {name: round(1e3 * statistics.median(values[1:]), 3) for name, values in seconds.items()}
    return found | {"ratio": round(statistics.median(ratios), 2)}


def table(record: Mapping[str, Any]) -> str:
    """Markdown of the record."""
    columns = ["T", "d_a", "K", "once, ms", "as pairs, ms", "ratio", "products, ms", "search, ms"]
    rows = [
        [
            *(f"{each[name]:,}" for name in ("length", "width", "candidates")),
            *(f"{each[name]:.1f}" for name in ("once", "pairs", "ratio")),
            *(f"{each[name]:.2f}" for name in ("products", "search")),
        ]
        for each in record["cases"]
    ]
    return markdown(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ranking K candidates for one user with a long history.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="put the record's table into the docs")
    arguments = parser.parse_args()
    if arguments.write:
        write_marked(PAGE, table(json.loads(RESULTS.read_text(encoding="utf-8"))), MARKS)
        return
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    cases = []
    for length in LENGTHS:
        for width in WIDTHS:
            for candidates in CANDIDATES:
                case = {"length": length, "width": width, "candidates": candidates}
                cases.append(case | measure(length, width, candidates, arguments.rounds))
                print(cases[-1], flush=True)
    environment = Environment.here().model_dump(mode="json")
    record = {"environment": environment, "rounds": arguments.rounds, "cases": cases}
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
