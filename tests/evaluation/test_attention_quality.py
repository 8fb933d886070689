"""What attention has learned: information against a plain count, NDCG by hand, a shared table's two gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from sklearn.metrics import mutual_info_score

from recsys._compat import tf
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.evaluation.attention_picture import conflict_picture, pairs_picture
from recsys.evaluation.attention_quality import (
    CategoryHistories,
    Information,
    attention_by_pair,
    category_histories,
    search_quality,
)
from recsys.evaluation.gradient_conflict import GradientConflict, gradient_conflicts
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.worlds import write_world

C = 3


@pytest.fixture(scope="module")
def histories() -> CategoryHistories:
    """The label follows whether the newest event is of category 1 where the target is of category 2."""
    rng = np.random.default_rng(0)
    events = rng.integers(0, C, (400, 5))
    events[np.arange(5) >= rng.integers(0, 6, (400, 1))] = -1
    events[rng.random(events.shape) < 0.05] = -1  # events of no known category
    targets = rng.integers(0, C, 400)
    newest = np.array([row[row >= 0][-1] if (row >= 0).any() else -1 for row in events])
    labels = np.where(targets == 2, newest == 1, rng.random(400) < 0.4).astype(np.float64)
    return CategoryHistories(targets, labels, events, C)


def test_information_is_that_of_presence_and_label(histories: CategoryHistories) -> None:
    """Category by category, place by place, counted in loops; the third range holds places 3 and older."""
    found = Information.of(histories, (1, 2, 3))
    assert found.bits.shape == (C, C, 3)
    np.testing.assert_array_equal(found.examples, np.bincount(histories.targets))
    for target in range(C):
        rows = np.flatnonzero(histories.targets == target)
        for event in range(C):
            for at in range(3):
                there = list[bool]()
                for row in rows:
                    known = np.flatnonzero(histories.events[row] >= 0)
                    places = {
                        min(int(known.max() - t), 2)
                        for t in known
                        if histories.events[row, t] == event
                    }  # fmt: skip
                    there.append(at in places)
                expected = mutual_info_score(histories.labels[rows], there) / np.log(2)
                assert found.bits[target, event, at] == pytest.approx(expected, abs=1e-9)
    assert found.bits[2, 1, 0] > 0.6
    assert found.bits[2, 1, 0] > 5 * found.bits[0].max()
    np.testing.assert_allclose(found.pairs(), found.bits.sum(2))


def test_every_event_has_the_information_of_its_category_and_place(histories: CategoryHistories) -> None:
    information = Information.of(histories, (1, 2, 3))
    values = information.values(histories)
    assert not values[histories.events < 0].any()
    row = int(np.flatnonzero((histories.events >= 0).sum(1) >= 4)[0])
    known = np.flatnonzero(histories.events[row] >= 0)
    for t in known:
        at = min(int(known.max() - t), 2)
        assert values[row, t] == information.bits[histories.targets[row], histories.events[row, t], at]
    least = int(information.examples[0])
    np.testing.assert_array_equal(information.known(histories, least), information.examples[histories.targets] >= least)


def test_ndcg_by_hand() -> None:
    """Discounts 1, 1/log2(3). First: found 0 then 2, best 4 then 2. Second: ties, the newer wins; padding does not,
    whatever its weight. Third: nothing to be found. Fourth: one event alone.
    """
    weights = np.array([[0.5, 0.2, 0.3], [0.4, 0.4, 9.0], [0.1, 0.2, 0.3], [0.0, 5.0, 5.0]])
    gains = np.array([[0.0, 4.0, 2.0], [1.0, 3.0, 7.0], [0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])
    events = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]], bool)
    d = 1 / np.log2(3)
    found = search_quality(weights, gains, events, k=2)
    first = (2 * d) / (4 + 2 * d)
    assert found.ndcg == pytest.approx((first + 1 + 1) / 3)
    chance = [2 * (1 + d) / (4 + 2 * d), 2 * (1 + d) / (3 + d), 1.0]
    assert found.random == pytest.approx(np.mean(chance))
    assert found.examples == 3
    assert search_quality(weights, 0 * gains, events).examples == 0


def test_a_random_search_has_the_random_ndcg() -> None:
    rng = np.random.default_rng(1)
    gains, events = rng.random((20_000, 9)) ** 3, np.arange(9) < rng.integers(1, 10, (20_000, 1))
    found = search_quality(rng.random(gains.shape), gains, events, k=4)
    assert found.ndcg == pytest.approx(found.random, abs=0.005)
    assert search_quality(gains, gains, events, k=4).ndcg == pytest.approx(1.0)


def test_learned_attention_by_pair(histories: CategoryHistories) -> None:
    weighed = CategoryHistories(
        np.array([0, 0, 1]), np.zeros(3), np.array([[1, 1], [1, -1], [2, 0]]), C, np.array([[1, 2], [6, 9], [0.5, 1.0]])
    )
    expected = np.full((C, C), np.nan)
    expected[0, 1], expected[1, 2], expected[1, 0] = 3.0, 0.5, 1.0
    np.testing.assert_array_equal(attention_by_pair(weighed), expected)
    with pytest.raises(ValueError, match="without a model"):
        attention_by_pair(histories)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("attention") / "world"))


def ranker(world: Prepared, **sequence: Any) -> Ranker:
    """Built, with rows of a size that matters."""
    decoupled = sequence.pop("decoupled", False)
    searched = {"attention_table": "searched"} if decoupled else {}
    embeddings: dict[str, Any] = {
        "tables": {"ids": {"dim": 6, "initializer": {"range": 1.0}}, "other": {"dim": 4}},
        "features": {
            "movie_id": {"table": "ids", **searched},
            "history": {"table": "ids", "pooling": "none", **searched},
            "user_id": {"table": "other"},
            "genres": {"table": "other"},
            "device": {"table": "other"},
        },
    }
    if decoupled:
        embeddings["tables"]["searched"] = {"dim": 6}
    config = RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [8]}, "sequence": sequence})
    model = Ranker(config, EmbeddingsConfig.model_validate(embeddings), world.info.features, seed=1)
    model.example_losses(batch(world), training=False)
    return model


def batch(world: Prepared) -> dict[str, Any]:
    from recsys.data.reader import Examples

    return next(iter(Examples(world, "train", 32, None).whole(32)))


@pytest.mark.parametrize("more", [{}, {"projection": 3}, {"time_dim": 2}, {"auxiliary": 0.0}])
def test_both_gradients_of_a_row_are_all_that_it_has(world: Prepared, more: dict[str, Any]) -> None:
    """Lengths and cosine give the length of their sum, which is that of the table's own gradient."""
    model, examples = ranker(world, kind="attention", top_k=2, **more), batch(world)
    (trained,) = (each for each in model.embeddings.trained() if each.source.shape[1] == 6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model.example_losses(examples, training=False))
    whole = tf.convert_to_tensor(tape.gradient(loss, trained.source)).numpy()
    found = gradient_conflicts(model, examples)["history"]
    assert len(found.ids) > 10
    assert 0 not in found.ids
    length = np.sqrt(
        found.attention**2 + found.representation**2 + 2 * found.cosine * found.attention * found.representation
    )
    np.testing.assert_allclose(length, np.linalg.norm(whole, axis=1)[found.ids], rtol=1e-4, atol=1e-7)


def test_what_the_search_does_not_move_is_no_conflict(world: Prepared) -> None:
    """With one event in each history its weight is 1 whatever its score: no gradient goes through the search."""
    model, examples = ranker(world, kind="attention", top_k=2), batch(world)
    history = examples["query"]["history"]
    examples["query"]["history"] = tf.concat([tf.maximum(history[:, :1], 2), tf.zeros_like(history[:, 1:])], 1)
    assert len(gradient_conflicts(model, examples)["history"].ids) == 0


def test_only_shared_tables_can_conflict(world: Prepared) -> None:
    for sequence in ({"kind": "attention", "decoupled": True}, {"kind": "din"}, {"kind": "mean"}):
        with pytest.raises(ValueError, match="no target attention whose tables are shared"):
            gradient_conflicts(ranker(world, **sequence), batch(world))


def test_histories_by_category_with_the_models_weights(world: Prepared) -> None:
    """Each film a category of its own: events are the batch's ids, weights those that the model says."""
    model = ranker(world, kind="attention", top_k=2)
    found = category_histories(world, "train", "history", "movie_id", rows=50, model=model)
    assert found.weights is not None
    assert found.events.shape == found.weights.shape == (50, 4)
    examples = world.examples("train", ["item_index", "label", "user_index", "history_stop", "time"]).slice(0, 50)
    ids = world.query_features(
        examples["user_index"].to_numpy(), examples["history_stop"].to_numpy(), {}, examples["time"].to_numpy()
    )["history"]
    np.testing.assert_array_equal(found.events, np.where(ids > 1, ids, -1))
    np.testing.assert_array_equal(found.targets, examples["item_index"].to_numpy() + 2)
    kept = (found.weights > 0).sum(1)
    np.testing.assert_array_equal(kept, np.minimum((found.events >= 0).sum(1), 2))
    with pytest.raises(ValueError, match="genres is to be one category"):
        category_histories(world, "train", "history", "genres", rows=5)


def test_pictures_are_drawn() -> None:
    part = GradientConflict(np.arange(2), np.array([-0.5, 0.5]), np.ones(2), np.array([4.0, 2.0]))
    both = GradientConflict.joined([part, part])
    assert (both.conflicting, both.dominance, len(both.ids)) == (0.5, 3.0, 4)
    (panel,) = conflict_picture("TWIN", both).axes
    heights = [bar.get_height() for bar in panel.patches if isinstance(bar, Rectangle)]
    assert sum(heights) == pytest.approx(1.0)
    assert panel.texts[0].get_text() == "in conflict: 50%"
    values = np.array([[1.0, 2.0], [np.nan, 0.0]])
    shown = pairs_picture("pairs", {"information": values, "attention": values}, np.array([0, 1])).axes
    np.testing.assert_array_equal(np.asarray(shown[0].images[0].get_array())[0], [0.5, 1.0])
