"""A bundle made by hand, small enough to compute every recommendation on paper.

The query tower's embedding holds one input per component, so that a score tells which inputs arrived, in which order:

    e0  genre: drama 1, comedy 2, missing 0, any other -1
    e1  sum over t of (t + 1) * (item index + 1) of `watched`, from the oldest (t = 0); missing counts 0
    e2  sum of `watched.age`, in days
    e3  price (missing: -1) + 10 for each tag "new" + 100 taste[0] + 1000 taste[1]

The ranker, where there is one, gives the log-odds genre * (item index + 1) / 2, with the genre as above; 0 for an item
that it does not know. Of a history it weighs an event by its item index + 1, and of its fields heeds the genre by 1/4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle import BundleWriter, Description, IndexFacts, RequestEncoder, Users
from recsys.bundle.golden import Stages, write_golden
from recsys.bundle.layout import MANIFEST
from recsys.bundle.manifest import (
    CategoricalField,
    MultiValuedField,
    NumericField,
    RankingFacts,
    RawField,
    SequenceField,
    VectorField,
)
from recsys.bundle.tower import ServedGraph
from recsys.bundle.verify import sha256
from recsys.retrieval import ExactIndex, Index

DAY = 86_400
ITEMS = ["10", "2", "3", "9", "é", "日本"]
TITLES = ["Ten", "Two", "Three", None, "Été", "日本 (1959)"]
TRAIN_COUNTS = [5, 9, 1, 7, 7, 3]
VECTORS = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0], [0, 0, 0, 0.5]], dtype=np.float32
)
REQUEST: dict[str, RawField] = {
    "genre": CategoricalField(role="user"),
    "tags": MultiValuedField(role="user", max_length=2),
    "watched": SequenceField(of="movie", max_length=3, age=True),
    "price": NumericField(role="context"),
    "taste": VectorField(role="user", dim=2),
}
USERS = pa.table(
    {
        "user": ["1", "42", "zoë"],
        "raw.genre": pa.array(["comedy", None, "drama"]),
        "raw.tags": pa.array([["new", "old"], None, []], pa.list_(pa.string())),
        "raw.taste": pa.array([[0.5, 0.0], None, [0.0, 0.25]], pa.list_(pa.float32())),
        "history": pa.array([[0, 3, 1, 2], [], [5]], pa.list_(pa.int32())),
        "history_time": pa.array([[0, DAY, 2 * DAY, 3 * DAY], [], [DAY]], pa.list_(pa.int64())),
        "seen": pa.array([[0, 1, 2, 3], [], [5]], pa.list_(pa.int32())),
    }
)

RANKING = RankingFacts(
    name="tiny ranker",
    request={name: REQUEST[name] for name in ("genre", "watched")},
    item={"movie": CategoricalField(role="item")},
    metrics={"auc": 0.75},
    config_digest="2" * 64,
)
EXACT = IndexFacts(kind="exact", k=10, recall=1.0)


def description(**changes: Any) -> Description:
    whole: dict[str, Any] = {
        "name": "tiny",
        "request": REQUEST,
        "item": {"movie": CategoricalField(role="item")},
        "embedding_dim": 4,
        "catalogue_size": len(ITEMS),
        "metrics": {"ndcg@10": 0.5},
        "index": EXACT,
        "config_digest": "0" * 64,
        "data_digest": "1" * 64,
        "timestamp_unit": "s",
        "data_time": 3 * DAY,
    }
    return Description(**(whole | changes))


def write(
    bundles: Path,
    *,
    index: Index | None = None,
    users: pa.Table = USERS,
    facts: IndexFacts = EXACT,
    beside: tuple[np.ndarray, np.ndarray] | None = None,
    ranks: bool = False,
    golden: bool = False,
    **changes: Any,
) -> Path:
    """Write the tiny bundle as the next one in `bundles`, with changes to its description, with what goes `beside`
    items by these input and output vectors, with a ranker if it `ranks`, and with `golden` requests.
    """
    with BundleWriter(bundles) as writer:
        save_towers(writer)
        (index or ExactIndex(VECTORS)).save(writer.path("index"))
        items = pa.table({"item": ITEMS, "title": TITLES, "train_count": TRAIN_COUNTS, "raw.movie": ITEMS})
        pq.write_table(items, writer.path("items.parquet"), row_group_size=2)
        pq.write_table(users, writer.path("users.parquet"), row_group_size=1)
        if beside is not None:
            np.save(writer.path("complements", "vectors.npy"), beside[0])
            ExactIndex(beside[1]).save(writer.path("complements", "index"))
            changes["complements"] = EXACT
        if ranks:
            save_ranker(writer)
            changes["ranking"] = RANKING
        if golden:
            tower = ServedGraph(writer.graph("query_tower"), RequestEncoder(REQUEST).inputs, "embedding")
            stages = Stages(Users(users, "users"), items, REQUEST, "s", tower, index or ExactIndex(VECTORS))
            write_golden(writer, stages)
        writer.describe(description(index=facts, **changes))
    return writer.folder


def _lookup(keys: list[str], values: list[float], default: float) -> Any:
    import tensorflow as tf

    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values, tf.float32))
    return tf.lookup.StaticHashTable(initializer, default)


def save_towers(writer: BundleWriter) -> None:
    import tensorflow as tf

    class QueryTower(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.genres = _lookup(["", "drama", "comedy"], [0, 1, 2], -1.0)
            self.codes = _lookup(["", *ITEMS], [0, 1, 2, 3, 4, 5, 6], 0.0)

        @tf.function(
            input_signature=[
                {
                    "genre": tf.TensorSpec([None], tf.string, name="genre"),
                    "tags": tf.TensorSpec([None, None], tf.string, name="tags"),
                    "watched": tf.TensorSpec([None, None], tf.string, name="watched"),
                    "watched.age": tf.TensorSpec([None, None], tf.float32, name="watched.age"),
                    "price": tf.TensorSpec([None], tf.float32, name="price"),
                    "taste": tf.TensorSpec([None, 2], tf.float32, name="taste"),
                }
            ]
        )
        def embed(self, inputs: Any) -> Any:
            order = tf.range(1.0, 1.0 + tf.cast(tf.shape(inputs["watched"])[1], tf.float32))
            price = tf.where(tf.math.is_nan(inputs["price"]), -1.0, inputs["price"])
            new = tf.reduce_sum(tf.cast(inputs["tags"] == "new", tf.float32), 1)
            components = [
                self.genres.lookup(inputs["genre"]),
                tf.reduce_sum(self.codes.lookup(inputs["watched"]) * order, 1),
                tf.reduce_sum(inputs["watched.age"], 1) / DAY,
                price + 10 * new + tf.linalg.matvec(inputs["taste"], tf.constant([100.0, 1000.0])),
            ]
            return {"embedding": tf.stack(components, 1)}

    class ItemTower(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = _lookup(ITEMS, [0, 1, 2, 3, 4, 5], -1.0)
            self.vectors = tf.constant(np.vstack([VECTORS, np.zeros((1, 4), np.float32)]))

        @tf.function(input_signature=[{"movie": tf.TensorSpec([None], tf.string, name="movie")}])
        def embed(self, inputs: Any) -> Any:
            row = tf.cast(self.rows.lookup(inputs["movie"]), tf.int32)
            return {"embedding": tf.gather(self.vectors, tf.where(row < 0, len(ITEMS), row))}

    for graph, tower in (("query_tower", QueryTower()), ("item_tower", ItemTower())):
        tf.saved_model.save(tower, str(writer.graph(graph)), signatures={"serving_default": tower.embed})


def save_ranker(writer: BundleWriter) -> None:
    import tensorflow as tf

    text, lists = [None], [None, None]
    specs = {
        "genre": tf.TensorSpec(text, tf.string, "genre"),
        "watched": tf.TensorSpec(lists, tf.string, "watched"),
        "watched_age": tf.TensorSpec(lists, tf.float32, "watched_age"),
        "movie": tf.TensorSpec(text, tf.string, "movie"),
    }

    class Ranker(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.genres = _lookup(["", "drama", "comedy"], [0, 1, 2], -1.0)
            self.codes = _lookup(ITEMS, [1, 2, 3, 4, 5, 6], 0.0)

        def score(self, **inputs: Any) -> Any:
            """Of pairs, and of one request with several items alike: the one genre is broadcast."""
            logit = self.genres.lookup(inputs["genre"]) * self.codes.lookup(inputs["movie"]) / 2
            return {"logit": logit, "score": tf.sigmoid(logit)}

        def score_many(self, query_of: Any, **inputs: Any) -> Any:
            return self.score(genre=tf.gather(inputs["genre"], query_of), movie=inputs["movie"])

        def explain(self, **inputs: Any) -> Any:
            shares = tf.tile(tf.constant([[[[[0.25, 0.75], [0.25, 0.75]]]]]), [tf.size(inputs["movie"]), 1, 1, 1, 1])
            fields = tf.constant(["genre", "movie"])
            return {"attention": shares, "fields": fields, "history": self.codes.lookup(inputs["watched"])}

    ranker = Ranker()
    score = tf.function(ranker.score).get_concrete_function(**specs)
    explain = tf.function(ranker.explain).get_concrete_function(**specs)
    query_of = tf.TensorSpec([None], tf.int32, "query_of")
    many = tf.function(ranker.score_many).get_concrete_function(query_of, **specs)
    signatures = {"serving_default": score, "rank": score, "rank_many": many, "explain": explain}
    tf.saved_model.save(ranker, str(writer.graph("ranker")), signatures=signatures)


@pytest.fixture(scope="session")
def ranked_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a ranker, likewise."""
    return write(tmp_path_factory.mktemp("ranked") / "bundle", ranks=True)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle of a run directory; tests that change it copy it first."""
    return write(tmp_path_factory.mktemp("run") / "bundle")


def with_digests(folder: Path) -> Path:
    """The bundle, once its manifest lists every file as it is now."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    path.write_text(json.dumps(manifest))
    return folder
