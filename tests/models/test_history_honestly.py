"""The honest tests of DIN and DARE (their papers' properties) on whole rankers: what a wiring mistake would break."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.prepared import Prepared
from recsys.interactions import attention
from recsys.interactions.config import DINConfig
from recsys.interactions.din import DIN
from recsys.models.base import Batch
from recsys.models.ranker import Ranker
from tests.models.test_candidates import spread
from tests.models.test_composed_ranker import SEQUENCES, examples, ranker

COUNT = 24


def with_history(batch: Batch, history: Any) -> Batch:
    """The batch with other histories [B, T]."""
    ages = tf.zeros(history.shape, tf.float32)
    return {**batch, "query": {**batch["query"], "history": tf.constant(history), "history.age": ages}}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_appended_padding_changes_no_loss(world: Prepared, sequence: str, training: bool) -> None:
    """In training too, where Dice takes the moments of the events alone."""
    model, batch = ranker(world, sequence, "none"), examples(world, COUNT)
    spread(model)
    expected = model.example_losses(batch, training=training)
    longer = with_history(batch, np.pad(batch["query"]["history"], [(0, 0), (0, 5)]))
    np.testing.assert_allclose(model.example_losses(longer, training=training), expected, rtol=1e-5, atol=1e-6)
    shorter = with_history(batch, np.roll(batch["query"]["history"], 1, axis=0))
    assert not np.allclose(model.example_losses(shorter, training=training), expected), "the history matters"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_order_of_events_changes_no_loss(world: Prepared, sequence: str, training: bool) -> None:
    """Without places, that is."""
    model, batch = ranker(world, sequence, "none"), examples(world, COUNT)
    spread(model)
    history = batch["query"]["history"].numpy()
    turned = np.where((history > 0).all(1)[:, None], history[:, ::-1], history)
    assert (turned != history).any()
    found = model.example_losses(with_history(batch, turned), training=training)
    np.testing.assert_allclose(found, model.example_losses(batch, training=training), rtol=1e-5, atol=1e-6)


def gradients(model: Ranker, batch: Batch) -> dict[str, np.ndarray]:
    """Of the whole training loss, auxiliary head included, by table."""
    trained = model.embeddings.trained()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model.example_losses(batch, training=False))
    found = tape.gradient(loss, [each.source for each in trained])
    return {
        each.table: np.zeros(1) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for each, gradient in zip(trained, found, strict=True)
    }


def test_attention_tables_learn_through_the_weights_alone(world: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights' gradient stopped, not one number of the search's table moves: its vectors go nowhere else, not
    into the features' concatenation, not into the representation.
    """
    model, batch = ranker(world, "dare", "none"), examples(world, COUNT)
    spread(model)
    assert np.abs(gradients(model, batch)["searched"]).max() > 0
    softmax = attention.masked_softmax
    monkeypatch.setattr(attention, "masked_softmax", lambda *given: tf.stop_gradient(softmax(*given)))
    stopped = gradients(model, batch)
    assert not stopped["searched"].any()
    assert np.abs(stopped["ids"]).max() > 0


def test_representation_tables_learn_nothing_of_the_search(world: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """DARE's representations have the same gradient whether the weights' is stopped or not; TWIN's have not."""
    for sequence, moves in (("dare", False), ("twin", True)):
        model, batch = ranker(world, sequence, "none"), examples(world, COUNT)
        spread(model)
        whole = gradients(model, batch)["ids"]
        softmax = attention.masked_softmax
        with monkeypatch.context() as patch:
            patch.setattr(attention, "masked_softmax", lambda *given, s=softmax: tf.stop_gradient(s(*given)))
            stopped = gradients(model, batch)["ids"]
        assert np.allclose(stopped, whole, rtol=1e-5, atol=1e-7) != moves


def test_in_the_papers_mode_one_history_weighs_more_for_one_target_than_for_another() -> None:
    """The sum of the weights is the intensity of the interest: DIN, section 4.3. Softmax has lost it."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(8, 5)).astype(np.float32)
    history = np.repeat(rng.normal(size=(1, 6, 5)), 8, 0).astype(np.float32)
    for softmax in (True, False):
        made = DIN(DINConfig(kind="din", hidden=(16,), activation="sigmoid", softmax=softmax), seed=1)
        sums = tf.reduce_sum(made.weigh(target, history, np.ones((8, 6), bool)), 1).numpy()
        assert (np.ptp(sums) > 0.1) != softmax
