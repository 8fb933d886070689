"""Towers from elsewhere: a model as the retrieval tutorial of TensorFlow Recommenders writes it, in a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys._compat import keras, tf, tfrs
from recsys.bundle import Bundle
from recsys.errors import DataError, ExportError
from recsys.evaluation.config import EvaluationConfig
from recsys.export import Log, export_towers
from recsys.export.config import RetrievalConfig
from recsys.retrieval import ExactConfig, ScannConfig

USERS, MOVIES, TASTES = 60, 90, 3
CONFIG = RetrievalConfig(index=ScannConfig(promise={"recall@10": 0.9}), retriever_k=5)
EVALUATION = EvaluationConfig(ks=(5, 10))


@dataclass(frozen=True)
class Tutorial:
    """What the tutorial ends with."""

    user_model: Any
    movie_model: Any
    movies: pd.DataFrame
    log: Log


def world() -> tuple[pd.DataFrame, Log]:
    """Each user likes the movies of one of three tastes; the last two of twelve are held out."""
    rng = np.random.default_rng(0)
    movies = pd.DataFrame(
        {
            "movie_title": [f"Movie {n:03d} é" for n in range(MOVIES)],
            "taste": [f"taste {n % TASTES}" for n in range(MOVIES)],
            "year": np.arange(MOVIES) + 1950.0,
            "tags": [["old", "new"][: 1 + n % 2] for n in range(MOVIES)],
        }
    )
    chosen = [rng.choice(np.arange(n % TASTES, MOVIES, TASTES), 12, replace=False) for n in range(USERS)]
    ratings = pd.DataFrame({"user_id": np.repeat(np.arange(USERS), 12), "number": np.concatenate(chosen)})
    ratings["movie_title"] = movies["movie_title"].to_numpy()[ratings["number"]]
    late = ratings.groupby("user_id").cumcount() >= 10
    return movies, Log(ratings[~late], ratings[late], "user_id", "movie_title")


def trained(movies: pd.DataFrame, log: Log) -> tuple[Any, Any]:
    """tensorflow.org/recommenders/examples/basic_retrieval, with fewer and smaller steps."""
    unique_movie_titles = np.unique(movies["movie_title"].to_numpy(str))
    unique_user_ids = np.unique(log.train["user_id"].to_numpy().astype(str))
    embedding_dimension = 8

    user_model = keras.Sequential(
        [
            keras.layers.StringLookup(vocabulary=unique_user_ids, mask_token=None),
            keras.layers.Embedding(len(unique_user_ids) + 1, embedding_dimension),
        ]
    )
    movie_model = keras.Sequential(
        [
            keras.layers.StringLookup(vocabulary=unique_movie_titles, mask_token=None),
            keras.layers.Embedding(len(unique_movie_titles) + 1, embedding_dimension),
        ]
    )

    class MovielensModel(tfrs.Model):  # type: ignore[misc]
        def __init__(self, user_model: Any, movie_model: Any) -> None:
            super().__init__()
            self.movie_model = movie_model
            self.user_model = user_model
            self.task = tfrs.tasks.Retrieval()

        def compute_loss(self, features: Any, training: bool = False) -> Any:
            user_embeddings = self.user_model(features["user_id"])
            positive_movie_embeddings = self.movie_model(features["movie_title"])
            return self.task(user_embeddings, positive_movie_embeddings, compute_metrics=not training)

    keras.utils.set_random_seed(1)
    model = MovielensModel(user_model, movie_model)
    model.compile(optimizer=keras.optimizers.legacy.Adagrad(learning_rate=0.5))
    rows = {
        "user_id": log.train["user_id"].to_numpy().astype(str),
        "movie_title": log.train["movie_title"].to_numpy(str),
    }
    ratings = tf.data.Dataset.from_tensor_slices(rows).shuffle(1_000, seed=1).batch(128).cache()
    model.fit(ratings, epochs=12, verbose=0)
    return user_model, movie_model


@pytest.fixture(scope="module")
def tutorial() -> Tutorial:
    movies, log = world()
    return Tutorial(*trained(movies, log), movies, log)


@pytest.fixture(scope="module")
def exported(tutorial: Tutorial, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export_towers(
        tutorial.user_model,
        tutorial.movie_model,
        tutorial.movies,
        tutorial.log,
        tmp_path_factory.mktemp("towers") / "bundle",
        name="tutorial",
        retrieval=CONFIG,
        evaluation=EVALUATION,
    )


FRESH = """
import json, sys
from recsys.bundle import Bundle
from serving import Pipeline, Request
pipeline = Pipeline(Bundle.load(sys.argv[1]))
asked = [{"user": "7"}, {"user": "7", "where": {"taste": "taste 2", "year": {"at_most": 1990}}}, {"features": {}}]
found = [[item.item for item in pipeline.recommend(Request.of(k=10, **each)).items] for each in asked]
print(json.dumps({"found": found, "engine": "tensorflow_recommenders" in sys.modules}))
"""


def test_it_is_recommended_from_in_a_fresh_process(tutorial: Tutorial, exported: Any) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FRESH, str(exported.bundle)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout)
    assert not answer["engine"]
    titles = tutorial.movies["movie_title"].to_numpy(str)
    query = tutorial.user_model(tf.constant(["7"])).numpy()[0]
    scores = tutorial.movie_model(tf.constant(titles)).numpy() @ query
    events = pd.concat([tutorial.log.train, tutorial.log.held_out])
    met = set(events[events["user_id"] == 7]["movie_title"])
    best = [titles[n] for n in np.argsort(-scores) if titles[n] not in met]
    assert answer["found"][0] == best[:10]
    fits = set(tutorial.movies.query("taste == 'taste 2' and year <= 1990")["movie_title"])
    assert answer["found"][1] == [title for title in best if title in fits][:10]
    assert len(answer["found"][2]) == 10, "somebody unknown is answered too"


def test_it_is_evaluated_on_the_full_catalogue(tutorial: Tutorial, exported: Any) -> None:
    """By hand: the share of the two held-out movies among the best five that the user had not met in training."""
    titles = tutorial.movies["movie_title"].to_numpy(str)
    vectors = tutorial.movie_model(tf.constant(titles)).numpy()
    shares = []
    for user in range(USERS):
        scores = vectors @ tutorial.user_model(tf.constant([str(user)])).numpy()[0]
        train, held_out = (
            set(frame[frame["user_id"] == user]["movie_title"]) for frame in (tutorial.log.train, tutorial.log.held_out)
        )
        best = [titles[n] for n in np.argsort(-scores) if titles[n] not in train][:5]
        shares.append(len(held_out & set(best)) / 2)
    assert exported.metrics["recall@5"] == pytest.approx(np.mean(shares))
    assert exported.metrics["recall@5"] > 1.5 * 5 / (MOVIES - 10), "far more than by chance"
    manifest = Bundle.load(exported.bundle).manifest
    assert manifest.metrics == exported.metrics
    assert manifest.index is not None
    assert (manifest.index.kind, manifest.index.promise) == ("scann", {"recall@10": 0.9})
    assert list(manifest.described) == ["taste", "year", "tags"]


class Concatenated(keras.Model):  # type: ignore[misc]
    """A tower of a text, a number and a list: their lengths and sums, so that each is seen to arrive."""

    def __init__(self, names: tuple[str, str, str]) -> None:
        super().__init__()
        self.names = names

    def call(self, inputs: Any) -> Any:
        text, number, several = (inputs[name] for name in self.names)
        count = tf.reduce_sum(tf.cast(several != "", tf.float32), 1)
        length = tf.cast(tf.strings.length(text), tf.float32)
        return tf.stack([length, tf.where(tf.math.is_nan(number), -1.0, number), count], 1)


def test_several_features_of_every_kind(tmp_path: Path) -> None:
    catalogue = pd.DataFrame(
        {"id": [3, 20, 1], "price": [1.5, np.nan, 4.0], "tags": [["a"], [], ["a", "b"]], "name": ["x", None, "z"]}
    )
    users = pd.DataFrame({"who": ["u", "vv"], "age": [0.5, 2.0], "likes": [["a", "b", "c"], ["a"]]})
    log = Log(pd.DataFrame({"who": ["u"], "id": [3]}), pd.DataFrame({"who": ["u", "vv"], "id": [1, 1]}), "who", "id")
    found = export_towers(
        Concatenated(("who", "age", "likes")),
        Concatenated(("id", "price", "tags")),
        catalogue,
        log,
        tmp_path / "bundle",
        users=users,
        query_features=["who", "age", "likes"],
        item_features=["id", "price", "tags"],
        title="name",
        retrieval=RetrievalConfig(index=ExactConfig(), retriever_k=2),
        evaluation=EVALUATION,
    )
    bundle = Bundle.load(found.bundle)
    assert bundle.items["item"].to_pylist() == ["1", "20", "3"]
    assert bundle.items["title"].to_pylist() == ["z", None, "x"]
    np.testing.assert_allclose(bundle.index.vectors, [[1, 4, 2], [2, -1, 0], [1, 1.5, 1]])
    np.testing.assert_allclose(bundle.embed([{"who": "vv", "age": 2, "likes": ["a"]}]), [[2, 2, 1]])
    assert bundle.users.seen(bundle.users.row("u")).tolist() == [2, 0]


def test_mistakes(tutorial: Tutorial, tmp_path: Path) -> None:
    log, movies = tutorial.log, tutorial.movies

    def export(query: Any = None, catalogue: pd.DataFrame = movies, log: Log = log, **more: Any) -> None:
        towers = (query or tutorial.user_model, tutorial.movie_model)
        export_towers(*towers, catalogue, log, tmp_path / "bundle", retrieval=CONFIG, evaluation=EVALUATION, **more)

    for broken, error, message in (
        ({"log": replace(log, user="who")}, DataError, "log.train: no column 'who'; expected one of user_id"),
        ({"title": "name"}, DataError, "catalogue: no column 'name'"),
        ({"catalogue": pd.concat([movies, movies[:1]])}, DataError, "column 'movie_title': an id twice"),
        (
            {"catalogue": movies[1:]},
            DataError,
            r"log\.\w+: column 'movie_title': 1 values that are no items.*Movie 000",
        ),
        ({"log": replace(log, held_out=log.train)}, DataError, "no user has an item that is not in log.train"),
        ({"log": replace(log, time="when")}, DataError, "no column 'when'"),
        (
            {"query": lambda ids: tf.strings.length(ids)},
            ExportError,
            "query_tower: cannot be saved as a tower of user_id",
        ),
        ({"query": lambda given: given["user_id"]}, ExportError, "take one feature as a tensor"),
    ):
        with pytest.raises(error, match=message):
            export(**broken)
    three = keras.Sequential([tutorial.user_model, keras.layers.Dense(3)])
    with pytest.raises(ExportError, match="queries of width 3, items of width 8; expected one width"):
        export(query=three)
    assert not list(tmp_path.glob("bundle/*"))
