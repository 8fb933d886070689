"""One example of every table method at every precision, on one small set of features: what the conformance suite runs.

Imports no test library: a fresh process (fresh.py) makes the same collections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, Precision, TableConfig
from recsys.embeddings.plan import (
    ElementBlock,
    EmbeddingPlan,
    Origin,
    RowBlock,
    TablePlan,
    VocabularyPlan,
    vocabulary_digest,
)
from recsys.embeddings.tables import Vocabularies

Batch = dict[str, tf.Tensor]
STEPS = 4
FEATURES: dict[str, FeatureInfo] = {
    "recent": SequenceInfo(of="movie", max_length=STEPS, age=False),
    "history": SequenceInfo(of="movie", max_length=STEPS, age=True),
    "user": CategoricalInfo(role="context", rows=40, oov_rows=2),
    "movie": CategoricalInfo(role="item", rows=30, oov_rows=1),
    "genres": CategoricalInfo(role="item", rows=9, oov_rows=1, max_length=3),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0)),
}
OF_MOVIES = ("recent", "history", "movie")
SIZES = {"user": 40, "movie": 30, "genres": 9, "price": 4}
SPECIAL = {"user": 3, "movie": 2, "genres": 2, "price": 4}
"""Ids of missing and OOV values, and buckets: nobody counts them."""
UNIONS: tuple[type[Any], ...] = get_args(get_args(TableConfig)[0])
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Case:
    """One table, read by all features (given vectors: by those with ids of movies), and how often."""

    table: dict[str, Any]
    chunks: int = 1
    readers: tuple[str, ...] = tuple(FEATURES)
    trains: bool = True
    """Whether the sparse optimizer moves its rows."""
    plan: str | None = None
    """Name of one of `plans`."""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """As the YAML has it."""
        return str(self.table["method"])

    @property
    def precision(self) -> str:
        """Of the rows in training."""
        return str(self.table.get("precision", "float32"))

    @property
    def served(self) -> str:
        """Precision of the rows in a bundle."""
        return str(self.table.get("served_precision", self.precision))


def _cases() -> dict[str, Case]:
    sized: dict[str, dict[str, Any]] = {
        "full": {},
        "hashed": {"rows": 60},
        "multiplexed": {"rows": 61},
    }
    found = {
        f"{method}-{precision}": Case({"method": method, "dim": 8, "precision": precision, **more})
        for method, more in sized.items()
        for precision in PRECISIONS
    }
    found["hashed-chunks"] = Case({"method": "hashed", "dim": 4, "rows": 60}, chunks=3)
    found["multiplexed-tables"] = Case({"method": "multiplexed", "dim": 4, "rows": 31, "tables": 2}, chunks=3)
    found["multiplexed-tables-int8"] = Case(
        {"method": "multiplexed", "dim": 4, "rows": 31, "tables": 2, "precision": "int8"}, chunks=3
    )
    for served in ("float16", "int8"):
        found[f"full-served-{served}"] = Case({"method": "full", "dim": 8, "served_precision": served})
    found["mixed_dim"] = Case({"method": "mixed_dim", "dim": 8, "alpha": 0.6})
    found["mgqe"] = Case({"method": "mgqe", "dim": 8, "parts": 4, "codes": 8, "tail_codes": 4, "head": 0.3})
    given: dict[str, Any] = {"method": "vector", "path": "given.parquet", "dim": 8}
    found["vector-frozen"] = Case(given, readers=OF_MOVIES, trains=False)
    found["vector-frozen-projected"] = Case({**given, "projection": 6}, readers=OF_MOVIES, trains=False)
    found["vector-fine_tuned"] = Case({**given, "train": "fine_tuned"}, readers=OF_MOVIES)
    found["vector-fine_tuned-projected-int8"] = Case(
        {**given, "train": "fine_tuned", "projection": 6, "served_precision": "int8"}, readers=OF_MOVIES
    )
    # No threshold reaches these rows: they are a full table's. tests/embeddings/test_optembed.py has those it reaches.
    found["optembed"] = Case({"method": "optembed", "dim": 8, "threshold": -2.0})
    found["dnis"] = Case({"method": "dnis", "dim": 8, "shares": [0.2, 0.3, 0.5]})
    for name, served in (("rows", "float32"), ("rows", "int8"), ("elements", "float32"), ("both", "float16")):
        table = {"method": "full", "dim": 8, "served_precision": served}
        found[f"planned-{name}-{served}"] = Case(table, plan=name)
    return found


def plans() -> dict[str, EmbeddingPlan]:
    """Plans of the table `t`, with everything that a plan can say; every feature keeps something."""
    rng = np.random.default_rng(7)

    def bits(*shape: int) -> NDArray[np.bool_]:
        kept = rng.random(shape) < 0.6
        kept[:3] = [[True], [False], [True]] if len(shape) == 2 else [True, False, True]
        return kept

    user: list[RowBlock | ElementBlock] = [
        RowBlock(ids=15, coordinates=4, kept=bits(15), pruned="shared"),
        RowBlock(ids=25, coordinates=(1, 4, 6), kept=bits(25)),
    ]
    movie: list[RowBlock | ElementBlock] = [
        RowBlock(ids=10, coordinates=8),
        RowBlock(ids=12, coordinates=4, kept=bits(12)),
        RowBlock(ids=8, coordinates=2, kept=np.zeros(8, bool), pruned="shared"),
    ]
    rest: dict[str, list[RowBlock | ElementBlock]] = {
        "genres": [RowBlock(ids=9, coordinates=2)],
        "price": [RowBlock(ids=2, coordinates=(7,)), RowBlock(ids=1, coordinates=0), RowBlock(ids=1, coordinates=3)],
    }
    by_rows = {"user": user, "movie": movie, **rest}
    elements: dict[str, list[RowBlock | ElementBlock]] = {
        name: [ElementBlock(kept=bits(ids, 8))] for name, ids in SIZES.items()
    }
    both = {"movie": [ElementBlock(kept=bits(18, 8)), *movie[1:2]], "user": user, "genres": elements["genres"]}
    made = {"rows": by_rows, "elements": elements, "both": {**both, "price": rest["price"]}}
    return {name: _plan(blocks, given=("movie",) if name == "both" else ()) for name, blocks in made.items()}


def _plan(blocks: Mapping[str, list[RowBlock | ElementBlock]], given: Sequence[str]) -> EmbeddingPlan:
    vocabularies = {}
    for name, own in blocks.items():
        numbers = np.random.default_rng(8).uniform(-0.05, 0.05, sum(block.numbers for block in own))
        vocabularies[name] = VocabularyPlan(
            digest=vocabulary_digest(FEATURES[name], partial(_values, name)),
            blocks=tuple(own),
            weights=numbers.astype(np.float32) if name in given else None,
        )
    return EmbeddingPlan(origin=Origin(method="test"), tables={"t": TablePlan(dim=8, vocabularies=vocabularies)})


CASES = _cases()


def config_of(case: Case, folder: Path) -> EmbeddingsConfig:
    """`folder` holds the given vectors."""
    rest = [name for name in FEATURES if name not in case.readers]
    features: dict[str, dict[str, Any]] = {name: {"table": "t", "chunks": case.chunks} for name in case.readers}
    features |= {name: {"table": "rest"} for name in rest}
    features["recent"]["pooling"] = "none"
    tables = {"t": case.table, **({"rest": {"dim": 3}} if rest else {})}
    plan = f"plan-{case.plan}" if case.plan else None
    return EmbeddingsConfig.model_validate({"tables": tables, "features": features, "plan": plan}).at(folder)


def write_given(folder: Path) -> None:
    """Plans, and vectors for some of the movies, in no order."""
    for name, plan in plans().items():
        plan.save(folder / f"plan-{name}")
    values = np.random.default_rng(5).permutation(28)[:25]
    vectors = np.random.default_rng(6).normal(size=(25, 8)).astype(np.float32)
    table = pa.table({"value": [f"m{n}" for n in values], "vector": list(vectors)})
    pq.write_table(table, folder / "given.parquet")


def _frequencies(name: str) -> NDArray[np.int64]:
    counts = np.zeros(SIZES[name], np.int64)
    known = SIZES[name] - SPECIAL[name]
    counts[SPECIAL[name] :] = 1000 // (1 + np.arange(known)) ** 2
    return counts


def _values(name: str) -> NDArray[np.object_]:
    return np.array([f"{name[0]}{n}" for n in range(SIZES[name] - SPECIAL[name])], object)


VOCABULARIES = Vocabularies(_frequencies, _values)


def collection_of(case: Case, folder: Path, seed: int = 0) -> EmbeddingCollection:
    """With its weights made."""
    made = EmbeddingCollection(
        config_of(case, folder), FEATURES, seed, VOCABULARIES, step=tf.Variable(0, False, dtype=tf.int64)
    )
    made(batch())
    return made


def batch(size: int = 6, half: int = 0, padding: int = 0) -> Batch:
    """Encoded features.

    Args:
        half: 0 or 1: two batches of different halves have no id in common but the padding; of the first, some single
            values are missing.
        padding: columns more than needed.
    """
    rng = np.random.default_rng(half)

    def ids(name: str, *shape: int) -> NDArray[np.int32]:
        special, middle = SPECIAL[name], (SPECIAL[name] + SIZES[name]) // 2
        low, high = (special, middle) if half == 0 else (middle, SIZES[name])
        return rng.integers(low, high, (size, *shape)).astype(np.int32)

    def padded(values: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
        values = np.where(np.arange(values.shape[1]) < lengths[:, np.newaxis], values, 0)
        return np.pad(values, [(0, 0), (0, padding)])

    # The first example's lists are full, the second's are empty.
    lengths = {name: np.minimum(np.arange(size - 1, -1, -1), top) for name, top in (("movie", STEPS), ("genres", 3))}
    for value in lengths.values():
        value[:2] = [STEPS, 0][: len(value)]
    ages = rng.uniform(0, 1e6, (size, STEPS)).astype(np.float32)  # some beyond float16
    user, movie = ids("user"), ids("movie")
    price = np.full(size, [0.5, 1.5][half], np.float32)
    if half == 0 and size > 2:
        user[-1] = movie[-2] = 0
        price[-1] = np.nan
    found = {
        "recent": padded(ids("movie", STEPS), lengths["movie"]),
        "history": padded(ids("movie", STEPS), lengths["movie"]),
        "history.age": np.pad(ages, [(0, 0), (0, padding)]),
        "user": user,
        "movie": movie,
        "genres": padded(ids("genres", 3), lengths["genres"]),
        "price": price,
    }
    return {name: tf.constant(value) for name, value in found.items()}


def every_id() -> Batch:
    """A batch that holds all ids of all features."""
    size = max(SIZES.values())
    ids = {name: (np.arange(size) % rows).astype(np.int32) for name, rows in SIZES.items()}
    events = np.stack([np.roll(ids["movie"], n) for n in range(STEPS)], 1)
    found = {
        "recent": events,
        "history": events,
        "history.age": np.full(events.shape, 3600, np.float32) * np.arange(STEPS, dtype=np.float32),
        "user": ids["user"],
        "movie": ids["movie"],
        "genres": np.stack([ids["genres"], np.roll(ids["genres"], 1)], 1),
        "price": np.array([np.nan, 0.5, 1.5, 2.5], np.float32)[ids["price"]],
    }
    return {name: tf.constant(value) for name, value in found.items()}


def ids_read(values: Batch) -> dict[str, NDArray[np.int64]]:
    """Of each feature all ids that are no padding. (The only missing or OOV ids are single ones.)"""
    price = values["price"].numpy()
    bucket = np.where(np.isnan(price), 0, 1 + np.searchsorted([1.0, 2.0], price, side="right"))
    many = {name: values[name].numpy().ravel() for name in ("recent", "history", "genres")}
    single = {name: values[name].numpy() for name in ("user", "movie")}
    found = {**{name: ids[ids > 0] for name, ids in many.items()}, **single, "price": bucket}
    return {name: np.unique(ids).astype(np.int64) for name, ids in found.items()}


def rows_of(collection: EmbeddingCollection, ids: dict[str, NDArray[np.int64]], table: str = "t") -> NDArray[np.int64]:
    """The distinct rows of a table that ids by feature read."""
    addressing, readers = collection.tables[table].addressing, collection.config.readers(table)
    found = [addressing(tf.constant(ids[name])[:, tf.newaxis], [name]).numpy().ravel() for name in readers]
    return np.unique(np.concatenate(found)).astype(np.int64)


def outputs(collection: EmbeddingCollection, values: Batch, served: Any = None) -> dict[str, tf.Tensor]:
    """All that a collection gives: `concat` and the sequences, as arrays without a meaning set to zero."""
    embedded = collection(values, served=served)
    padded = {
        name: sequence.values * tf.cast(sequence.mask, sequence.values.dtype)[..., tf.newaxis]
        for name, sequence in embedded.sequences.items()
    }
    return {"concat": embedded.concat(), **padded}


def methods(cases: Iterable[Case]) -> set[str]:
    """Of some cases."""
    return {case.method for case in cases}
