"""Ids that training forgets: how many, in favour of which, and never when serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, SequenceInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.id_dropout import IdDropout
from recsys.schema.config import SchemaConfig

INFO = CategoricalInfo(role="item", rows=1_000, oov_rows=3)
IDS = tf.constant(np.random.default_rng(0).integers(4, 1_000, (400, 50)), tf.int32)


def dropped(rate: float = 0.3, seed: int = 0, step: int = 3, name: str = "f", ids: tf.Tensor = IDS) -> NDArray[Any]:
    return IdDropout(name, rate, INFO, seed, tf.Variable(step, dtype=tf.int64, trainable=False))(ids).numpy()


def test_a_share_becomes_unknown_and_the_rest_stays() -> None:
    found = dropped()
    changed = found != IDS.numpy()
    assert changed.mean() == pytest.approx(0.3, abs=0.01)
    kinds, counts = np.unique(found[changed], return_counts=True)
    assert kinds.tolist() == [1, 2, 3]
    assert counts / changed.sum() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_what_is_missing_stays_missing() -> None:
    ids = tf.where(IDS < 500, 0, IDS)
    assert not dropped(0.9, ids=ids)[ids.numpy() == 0].any()


def test_a_draw_is_a_function_of_seed_step_and_feature() -> None:
    first = dropped() != IDS.numpy()
    tf.random.set_seed(99)
    np.testing.assert_array_equal(dropped() != IDS.numpy(), first)
    for other in (dropped(step=4), dropped(seed=1), dropped(name="g")):
        assert float(((other != IDS.numpy()) == first).mean()) == pytest.approx(0.3**2 + 0.7**2, abs=0.02)


def test_only_training_drops_and_only_the_features_that_say_so() -> None:
    features = {"item": INFO, "past": SequenceInfo(of="item", max_length=50, age=False)}
    config = EmbeddingsConfig.model_validate(
        {
            "tables": {"t": {"dim": 2}},
            "features": {"item": {"table": "t"}, "past": {"table": "t", "pooling": "none", "dropout": 0.5}},
        }
    )
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    collection = EmbeddingCollection(config, features, seed=0, step=step)
    batch = {"item": IDS[:, 0], "past": IDS}
    served, trained = collection(batch), collection(batch, training=True)
    np.testing.assert_array_equal(served.vectors()["item"], trained.vectors()["item"])
    same = np.all(served.sequences["past"].values == trained.sequences["past"].values, axis=-1)
    assert same.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(served.sequences["past"].mask, trained.sequences["past"].mask)


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ({"kind": "categorical", "role": "item", "encoding": {"kind": "hash"}}, "no vocabulary"),
        ({"kind": "numeric", "role": "item", "transform": "bucketize"}, "no number is unknown"),
    ],
)
def test_without_a_vocabulary_nothing_is_unknown(feature: dict[str, Any], text: str) -> None:
    schema = SchemaConfig.model_validate({"user": "u", "item": "i", "features": {"f": feature}})
    entry = {"table": "t", "dropout": 0.5}
    config = EmbeddingsConfig.model_validate(
        {"tables": {"t": {"method": "multiplexed", "rows": 8, "dim": 2}}, "features": {"f": entry}}
    )
    ((key, found),) = config.problems(schema)
    assert key == "features.f.dropout"
    assert text in found
