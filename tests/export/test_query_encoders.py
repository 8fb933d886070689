"""Query towers that read histories by an encoder: raw requests through SavedModels in a fresh process, against the
training graph.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.bundle.manifest import signature_name
from recsys.data.catalogue import Catalogue
from recsys.data.sequences import Sequences
from recsys.embeddings.optimizers import TableOptimizers
from recsys.export.signatures import Encoder, TowerModule
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.training.optimizers import make_dense_optimizer
from tests.export.conftest import EMBEDDINGS, TOWER, TRAINING, Exported
from tests.export.raw_requests import Raw, encode, random_requests, relative

ENCODERS: dict[str, dict[str, Any]] = {
    "attention_pooling": {"kind": "attention_pooling"},
    "gru": {"kind": "gru", "units": 5},
    "transformer": {"kind": "transformer", "heads": 2},
}
REQUESTS = 200
FRESH = """
import sys
import numpy as np
import tensorflow as tf
requests, results, *folders = sys.argv[1:]
arrays = dict(np.load(requests))
arrays = {n: tf.constant(a.astype(object), tf.string) if a.dtype.kind == "U" else a for n, a in arrays.items()}
found = {}
for folder in folders:
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    parts = [serve(**{n: a[at:at + 1] for n, a in arrays.items()})["embedding"].numpy() for at in range(3)]
    found[folder] = serve(**arrays)["embedding"].numpy()
    found[folder + "/single"] = np.concatenate(parts)
assert not {"recsys", "tf_keras", "scann"} & set(sys.modules)
np.savez(results, *found.values())
"""


@dataclass(frozen=True)
class Answers:
    expected: NDArray[np.float32]
    """Of the training graph."""
    found: NDArray[np.float32]
    """Of a fresh process, all requests at once."""
    single: NDArray[np.float32]
    """Of a fresh process, the first requests one by one."""


@pytest.fixture(scope="module")
def requests(exported: Exported) -> Raw:
    return random_requests(exported.prepared, REQUESTS)


@pytest.fixture(scope="module")
def answers(exported: Exported, requests: Raw, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    folder, expected = tmp_path_factory.mktemp("encoders"), {}
    for name, encoder in ENCODERS.items():
        model = trained(exported, encoder)
        names = exported.prepared.names("user", "context")
        module = TowerModule(
            model.query_tower,
            Encoder(exported.prepared.path, exported.prepared.info.features, names),
            model.embeddings.serve(),
        )
        module.save(folder / name)
        expected[name] = model.query_vectors(encode(exported.prepared, requests))
    arrays = {signature_name(n): a.astype("U") if a.dtype == object else a for n, a in requests.items()}
    np.savez(folder / "requests.npz", **arrays)
    folders = [str(folder / name) for name in ENCODERS]
    command = [sys.executable, "-I", "-c", FRESH, folder / "requests.npz", folder / "results.npz", *folders]
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = list(np.load(folder / "results.npz").values())
    return {name: Answers(expected[name], *found[2 * n : 2 * n + 2]) for n, name in enumerate(ENCODERS)}


def trained(exported: Exported, encoder: dict[str, Any]) -> TwoTower:
    """Some steps on windows; only one of the two histories stays a sequence, the other is dropped."""
    entries = {name: entry for name, entry in EMBEDDINGS.features.items() if name != "studios"}
    entries["recent"] = entries["recent"].model_copy(update={"pooling": "none"})
    embeddings = EMBEDDINGS.model_copy(update={"features": entries})
    prepared = exported.prepared
    features = {name: info for name, info in prepared.info.inputs.items() if name != "studios"}
    config = TwoTowerConfig.model_validate(
        {"kind": "two_tower", "query": {**TOWER, "sequence": encoder}, "item": TOWER}
    )
    model = make_model(config, embeddings, features, Catalogue.of(prepared), seed=1)
    assert isinstance(model, TwoTower)
    sequences = Sequences(prepared, 8, seed=1)
    dense = make_dense_optimizer(TRAINING.dense_optimizer)
    model.compile(TableOptimizers.of(embeddings), dense, sequences.examples_per_step)
    model.build_from(sequences.sample())
    for batch in sequences.batches(0).take(1):
        model.train_step(batch)
    for weight in model.dense_variables():
        weight.assign_add(np.random.default_rng(0).normal(size=weight.shape, scale=0.2))
    return model


@pytest.mark.parametrize("name", ENCODERS)
def test_a_fresh_process_gives_the_training_graphs_vectors(answers: dict[str, Answers], name: str) -> None:
    answer = answers[name]
    assert relative(answer.found, answer.expected) <= 1e-5
    assert relative(answer.single, answer.expected[: len(answer.single)]) <= 1e-5
    assert len(np.unique(answer.expected.round(4), axis=0)) > 0.9 * REQUESTS


@pytest.mark.parametrize("name", ["transformer"])
def test_the_history_reaches_the_vector(
    exported: Exported, requests: Raw, answers: dict[str, Answers], name: str
) -> None:
    encoded = encode(exported.prepared, requests)
    model = trained(exported, ENCODERS[name])
    other = model.query_vectors(encoded | {"recent": encoded["recent"][:, ::-1].copy()})
    assert np.abs(other - answers[name].expected).max() > 1e-2
