"""What a ranker looked at: maps by hand, means of single maps, events beside their own weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import ConfigError, DataError
from recsys.evaluation import explanation
from recsys.evaluation.explanation import UNKNOWN, Explanation, Item, Looks, Prediction, explain_model
from recsys.evaluation.explanation_picture import attention_picture, events_picture, gates_picture, places_picture
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.worlds import write_world

TABLES = {name: {"dim": dim, "initializer": {"range": 1.0}} for name, dim in (("ids", 8), ("own", 8), ("searched", 4))}
FEATURES: dict[str, Any] = {
    "device": {"table": "ids"},
    "history": {"table": "ids", "pooling": "none"},
    "genres": {"table": "ids"},
    "movie_id": {"table": "ids"},
    "price": {"projection": 8},
    "user_id": {"table": "ids"},
}
FIELDS = ("user_id", "movie_id", "genres", "price", "device")
AUTOINT = {"kind": "autoint", "layers": 2, "heads": 2, "head_dim": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("explained") / "world"))


def ranker(world: Prepared, features: dict[str, Any] = FEATURES, **config: Any) -> Ranker:
    read = {entry.get(key) for entry in features.values() for key in ("table", "attention_table")}
    tables = {name: table for name, table in TABLES.items() if name in read}
    model = make_model(
        RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [4]}} | config),
        EmbeddingsConfig.model_validate({"tables": tables, "features": features}),
        {name: info for name, info in world.info.features.items() if name in features},
        Catalogue.of(world),
        seed=1,
    )
    assert isinstance(model, Ranker)
    model.example_losses(Examples(world, "train", 8, seed=0).sample(), training=False)
    return model


def without_history(**changes: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in FEATURES.items() if name != "history"} | changes


def all_of(world: Prepared, model: Ranker) -> Explanation:
    return explain_model(model, world, "test", examples=10_000)


def test_a_map_by_hand(world: Prepared) -> None:
    """With e_user = [1, 0], e_device = [3, 2] and ψ(m, k) = e_m1 e_k2, the user's ψ are 0 and 2, the device's 0 and 6.
    A map whose rows are the fields that are looked at would be another, as would one in the order of the embeddings.
    """
    features = {"device": {"table": "own"}, "user_id": {"table": "ids"}}
    model = ranker(world, features, interaction={"kind": "autoint", "layers": 1, "heads": 1, "head_dim": 8})
    query, key = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    query[0, 0] = key[1, 0] = 1.0
    kernels = model._fields._layers[0]._kernels
    kernels["query"].assign(query)
    kernels["key"].assign(key)
    for name, vector in (("ids", [1.0, 0.0]), ("own", [3.0, 2.0])):
        rows = model.embeddings.tables[name].store.embeddings  # type: ignore[attr-defined]
        rows.assign(np.broadcast_to(vector + [0.0] * 6, rows.shape))
    found = explain_model(model, world)
    expected = np.array([[1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))], [1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))]])
    assert found.fields == ("user_id", "device")
    assert found.mean.attention is not None
    np.testing.assert_allclose(found.mean.attention, expected[None, None], rtol=1e-5)
    for each in found.predictions:
        np.testing.assert_allclose(each.looks.attention, expected[None, None], rtol=1e-5)
    np.testing.assert_allclose(found.mean.heeded(), expected.mean(0), rtol=1e-5)


def test_the_mean_is_that_of_the_single_maps(world: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "BLOCK", 7)
    model = ranker(world, without_history(), interaction=AUTOINT)
    found = all_of(world, model)
    assert found.examples == len(found.predictions) == 40
    maps = np.stack([each.looks.attention for each in found.predictions])
    assert maps.shape == (40, 2, 2, 5, 5)
    np.testing.assert_allclose(found.mean.attention, maps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
    assert maps.std(0).min() > 1e-4, "or one of them would do for the mean"
    monkeypatch.setattr(explanation, "MEANED", 14)
    few = explain_model(model, world)
    assert few.examples == 14
    np.testing.assert_allclose(few.mean.attention, maps[:14].mean(0), rtol=1e-5)


def test_gates_of_arm_net(world: Prepared) -> None:
    model = ranker(world, without_history(), interaction={"kind": "arm_net", "neurons": 3, "heads": 2, "alpha": 2.0})
    for weight in model._fields.trainable_variables:
        weight.assign(3 * weight)
    found = all_of(world, model)
    gates = np.stack([each.looks.gates for each in found.predictions])
    assert gates.shape == (40, 2, 3, 5)
    np.testing.assert_allclose(gates.sum(-1), 1.0, rtol=1e-5)
    assert (gates == 0.0).any(), "sparse"
    np.testing.assert_allclose(found.mean.gates, gates.mean(0), rtol=1e-5)
    assert (found.mean.attention, found.mean.history) == (None, None)


DECOUPLED = {name: FEATURES[name] | {"attention_table": "searched"} for name in ("movie_id", "history")}
HISTORIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "din": ({"kind": "din", "hidden": [8]}, {}),
    "intensity": ({"kind": "din", "hidden": [8], "softmax": False}, {}),
    "din of the newest": ({"kind": "din", "hidden": [8]}, {"history": FEATURES["history"] | {"max_length": 3}}),
    "twin": ({"kind": "attention", "top_k": 2}, {}),
    "dare": ({"kind": "attention", "top_k": 2}, DECOUPLED),
    "mean": ({"kind": "mean"}, {}),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_weights_and_the_events_make_the_history_s_vector(world: Prepared, name: str) -> None:
    """Σ weight × vector of the event that stands beside it is what the sequence layer gives: not so with weights in
    another order, with those of all events where a search keeps two, or with events of another window.
    """
    sequence, changes = HISTORIES[name]
    model = ranker(world, FEATURES | changes, sequence=sequence)
    found = all_of(world, model)
    vectors = model.embeddings({"movie_id": world.item_features["movie_id"]}).vectors()["movie_id"].numpy()
    numbers = {item: n for n, item in enumerate(world.items["item"].to_pylist())}
    batch = Examples(world, "test", 1, seed=None).take(np.arange(40))
    output = model._history(model.embeddings({**batch["query"], **batch["item"]})).main.numpy()
    if sequence["kind"] == "attention":
        output = output[:, 8:16]
    longest = 3 if "newest" in name else 4
    for n, each in enumerate(found.predictions):
        own = vectors[[numbers[event.item] for event in each.events]]
        assert each.looks.history is not None
        assert len(each.looks.history) == len(each.events) <= longest
        np.testing.assert_allclose(each.looks.history @ own, output[n], rtol=1e-3, atol=1e-5)
    if sequence["kind"] == "attention":
        assert max(np.count_nonzero(each.looks.history) for each in found.predictions) == 2
    assert found.mean.history is not None
    for place, mean in enumerate(found.mean.history):
        weights = [p.looks.history[place] for p in found.predictions if len(p.events) > place]  # type: ignore[index]
        assert mean == pytest.approx(np.mean(weights) if weights else 0.0, abs=1e-5)


def test_histories_are_those_before_the_example(world: Prepared) -> None:
    model = ranker(world, sequence={"kind": "mean"})
    found = all_of(world, model)
    table = world.examples("test", ["user_index", "history_stop"])
    user, stop = (table[name].to_numpy() for name in ("user_index", "history_stop"))
    names = world.items["item"].to_pylist()
    for n, each in enumerate(found.predictions):
        own = world.events.item_index[world.event_start[user[n]] : stop[n]]
        assert [event.item for event in each.events] == [names[item] for item in own[::-1][:4]]
        assert all(event.title == f"Item {int(str(event.item)[1:])}" for event in each.events)


def test_values_as_people_know_them(world: Prepared) -> None:
    found = all_of(world, ranker(world, without_history(), interaction=AUTOINT))
    assert found.fields == FIELDS, "the schema's order, not that of the embeddings"
    table = world.examples("test", ["user_index", "item_index", "device", "label"])
    devices: list[str | None] = [None, UNKNOWN, *world.vocabulary("device")]
    for each, row in zip(found.predictions, table.to_pylist(), strict=True):
        n = row["item_index"]
        assert (each.user, each.item, each.title) == (f"u{row['user_index']:03d}", f"i{n:03d}", f"Item {n}")
        assert each.values == {
            "user_id": each.user,
            "movie_id": each.item,
            "genres": [f"g{n % 5}", f"g{n % 3}"],
            "price": float(n),
            "device": devices[row["device"]],
        }
        assert each.label == row["label"]
    assert UNKNOWN in {each.values["device"] for each in found.predictions}


def test_a_pooled_history_is_a_field(world: Prepared) -> None:
    """Its value is the items of the events, oldest first."""
    pooled = FEATURES | {"history": {"table": "ids"}}
    found = all_of(world, ranker(world, pooled, interaction=AUTOINT))
    assert set(found.fields) == {*FIELDS, "history"}
    searched = all_of(world, ranker(world, sequence={"kind": "mean"}))
    for each, same in zip(found.predictions, searched.predictions, strict=True):
        assert each.values["history"] == [event.item for event in same.events][::-1]
    assert found.mean.history is None


def test_the_score_is_the_model_s(world: Prepared) -> None:
    model = ranker(world, without_history(), interaction=AUTOINT)
    logits = np.concatenate([model.score(b).numpy() for b in Examples(world, "test", 1, seed=None).whole(64)])
    scores = [each.score for each in all_of(world, model).predictions]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert np.std(scores) > 1e-3


def test_examples_are_chosen(world: Prepared) -> None:
    model = ranker(world, without_history(), interaction=AUTOINT)
    every = all_of(world, model)
    assert [(p.user, p.item) for p in explain_model(model, world, examples=3).predictions] == [
        (p.user, p.item) for p in every.predictions[:3]
    ]
    (one,) = explain_model(model, world, user="u007").predictions
    assert one.user == "u007"
    wanted = every.predictions[11]
    (same,) = explain_model(model, world, user=wanted.user, item=wanted.item).predictions
    np.testing.assert_allclose(same.looks.attention, wanted.looks.attention, rtol=1e-5)
    on_item = [p.user for p in every.predictions if p.item == wanted.item]
    assert [p.user for p in explain_model(model, world, item=wanted.item, examples=99).predictions] == on_item
    with pytest.raises(DataError, match="test: no example of user 'nobody' on item 'i001'; expected at least one"):
        explain_model(model, world, user="nobody", item="i001")


@pytest.mark.parametrize("interaction", [None, {"kind": "cross"}, {"kind": "fm"}])
def test_what_weighs_nothing_is_refused(world: Prepared, interaction: dict[str, Any] | None) -> None:
    model = ranker(world, without_history(), interaction=interaction)
    with pytest.raises(ConfigError, match=r"no layer of it weighs fields or events.*autoint or arm_net"):
        explain_model(model, world)


def test_the_record_is_json_with_the_fields_in_order(world: Prepared) -> None:
    model = ranker(world, interaction=AUTOINT, sequence={"kind": "din", "hidden": [8]})
    record = json.loads(json.dumps(explain_model(model, world, examples=2).record()))
    assert record["fields"] == list(FIELDS)
    assert list(record["predictions"][0]["values"]) == list(FIELDS)
    assert (record["part"], record["examples"], len(record["predictions"])) == ("test", 40, 2)
    np.testing.assert_allclose(np.sum(record["mean"]["attention"], -1), 1.0, atol=1e-5)
    for each in record["predictions"]:
        assert np.shape(each["attention"]) == (2, 2, 5, 5)
        assert len(each["events"]) == len(each["history"])
    assert "not why the score is what it is" in record["caption"]


# The pictures.


def cells(figure: Any) -> list[Any]:
    return [panel for panel in figure.axes if panel.images]


@pytest.mark.parametrize("fields", [1, 5, 39])
def test_a_map_for_each_layer_and_head(fields: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(fields), (3, 2, fields))
    labels = [f"field {n}" for n in range(fields)]
    figure = attention_picture("a title", labels, attention)
    figure.savefig(tmp_path / "p.png")
    titles = [panel.get_title() for panel in cells(figure)]
    assert titles == [f"layer {layer}, head {head}" for layer in (1, 2, 3) for head in (1, 2)]
    for panel, weights in zip(cells(figure), attention.reshape(6, fields, fields), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), weights)
        assert panel.images[0].get_clim() == (0.0, attention.max()), "one scale for all"
        written = [text.get_text() for text in panel.texts]
        assert written == ([f"{w:.2f}".removeprefix("0") for w in weights.ravel()] if fields <= 8 else [])
    assert [text.get_text() for text in cells(figure)[0].get_yticklabels()] == labels
    assert [text.get_text() for text in cells(figure)[-1].get_xticklabels()] == labels


def test_neurons_that_heed_one_field_stand_together(tmp_path: Path) -> None:
    gates = np.array([[[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [1.0, 0.0]]])
    figure = gates_picture("t", ["a", "b"], gates)
    figure.savefig(tmp_path / "p.png")
    (panel,) = cells(figure)
    np.testing.assert_array_equal(panel.images[0].get_array(), [[1.0, 0.0], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])


def test_the_heaviest_events_stand_first(tmp_path: Path) -> None:
    events = (Item("a", "A costs $5 and $6"), Item("b", None), Item("c", "C" * 99))
    looks = Looks(None, None, np.array([0.1, 0.7, 0.2]))
    figure = events_picture("t", Prediction("u", "i", None, 1.0, 0.5, {}, events, looks))
    figure.savefig(tmp_path / "p.png")
    (panel,) = figure.axes
    names = [text.get_text() for text in panel.get_yticklabels()]
    assert names == ["b  (2)", f"{'C' * 31}…  (3)", r"A costs \$5 and \$6  (1)"]
    assert [bar.get_width() for bar in panel.patches] == [0.7, 0.2, 0.1]
    nobody = Prediction("u", "i", None, 1.0, 0.5, {}, (), Looks(None, None, np.array([])))
    events_picture("t", nobody).savefig(tmp_path / "q.png")


def test_places_from_the_newest_on(tmp_path: Path) -> None:
    figure = places_picture("t", np.array([0.5, 0.3, 0.2]))
    figure.savefig(tmp_path / "p.png")
    (panel,) = figure.axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in panel.patches] == [
        (1, 0.5),
        (2, 0.3),
        (3, 0.2),
    ]
