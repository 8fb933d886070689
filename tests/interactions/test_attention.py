"""Two-stage target attention: by hand, against a plain loop, what its gradients reach, one user's candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys._compat import keras, tf
from recsys.interactions import attention
from recsys.interactions.attention import Attended, TargetAttention
from recsys.interactions.config import AttentionConfig

Arrays = dict[str, NDArray[Any]]
B, T, D, D_A = 6, 7, 5, 3
LENGTHS = [7, 0, 1, 2, 5, 7]  # full, empty, and fewer events than the search keeps
VARIANTS: dict[str, dict[str, Any]] = {
    "twin": {},
    "dare": {"decoupled": True},
    "projection": {"projection": 4},
    "twin-time": {"time_dim": 2},
    "dare-time": {"decoupled": True, "time_dim": 2},
    "projection-time": {"projection": 4, "time_dim": 2},
    "not-target-aware": {"decoupled": True, "target_aware": False},
}
EVERY = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))


def layer(seed: int = 0, decoupled: bool = False, name: str = "attention", **config: Any) -> TargetAttention:
    return TargetAttention(AttentionConfig(kind="attention", **{"top_k": 3, **config}), seed, decoupled, name)


def inputs(seed: int = 0, decoupled: bool = False, dtype: str = "float64") -> Arrays:
    rng = np.random.default_rng(seed)
    found: Arrays = {
        "target": rng.normal(size=(B, D)).astype(dtype),
        "history": rng.normal(size=(B, T, D)).astype(dtype),
        "mask": np.arange(T) < np.array(LENGTHS)[:, np.newaxis],
    }
    if decoupled:
        found["attention_target"] = rng.normal(size=(B, D_A)).astype(dtype)
        found["attention_history"] = rng.normal(size=(B, T, D_A)).astype(dtype)
    return found


def called(made: TargetAttention, values: Arrays) -> Attended:
    return made(**{name: tf.constant(value) for name, value in values.items()})


def spread(made: TargetAttention) -> None:
    """Gives the layer's weights sizes that matter: places begin near 0."""
    rng = np.random.default_rng(3)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.get_weights()])


def softmax(x: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(x - x.max())
    return e / e.sum()


def plain(made: TargetAttention, values: Arrays, top_k: int, target_aware: bool = True) -> tuple[Any, Any]:
    """The same row by row and event by event, without padding, from the equations."""
    weights = {weight.name.split("/")[-1].split(":")[0]: weight.numpy() for weight in made.weights}
    maps = {side: weights.get(side) for side in ("query", "key", "target", "event")}
    places = weights.get("places")
    searched_places = weights.get("searched_places", places)

    def pair(side: str, vector: Any, table: Any, place: int) -> tuple[Any, Any]:
        time = np.zeros(0) if table is None else table[place]
        if maps[side] is None:
            return vector, time
        return vector @ weights[side], time @ weights[f"{side}_time"] if table is not None else time

    main, auxiliary = [], []
    for row in range(len(values["target"])):
        events = np.flatnonzero(values["mask"][row])
        a_t, t_t = pair("query", values.get("attention_target", values["target"])[row], searched_places, 0)
        r_t = np.concatenate(pair("target", values["target"][row], places, 0))
        scores, found = [], []
        for event in events:
            place = int(events.max()) - int(event) + 1
            a_i, t_i = pair(
                "key", values.get("attention_history", values["history"])[row, event], searched_places, place
            )
            scores.append(a_i @ a_t / np.sqrt(len(a_t)) + (t_i @ t_t / np.sqrt(len(t_t)) if len(t_t) else 0.0))
            found.append(np.concatenate(pair("event", values["history"][row, event], places, place)))
        order = np.argsort(scores)[::-1]
        for kept, out in ((order[:top_k], main), (order, auxiliary)):
            mean = softmax(np.array(scores)[kept]) @ np.array(found)[kept] if len(kept) else np.zeros(len(r_t))
            out.append(np.concatenate([r_t, mean, r_t * mean] if target_aware else [r_t, mean]))
    return np.array(main), np.array(auxiliary)


@pytest.mark.usefixtures("double")
def test_by_hand() -> None:
    """d_a = 4, so scores are halves of products: ln 2, 0, 2 ln 2; padding would have 9 ln 2. The search keeps the first
    and the third with weights 2 : 4; all events weigh 2 : 1 : 4.
    """
    keys = np.zeros((1, 4, 4))
    keys[0, :, 0] = [1, 0, 2, 9]
    found = called(
        layer(decoupled=True, top_k=2),
        {
            "target": np.array([[2.0, -1.0]]),
            "history": np.array([[[3.0, 0.0], [7.0, 7.0], [0.0, 6.0], [100.0, 100.0]]]),
            "mask": np.array([[True, True, True, False]]),
            "attention_target": np.array([[2 * np.log(2), 0.0, 0.0, 5.0]]),
            "attention_history": keys,
        },
    )
    np.testing.assert_allclose(found.main, [[2, -1, 1, 4, 2, -4]], rtol=1e-12)
    np.testing.assert_allclose(found.auxiliary, [[2, -1, 13 / 7, 31 / 7, 26 / 7, -31 / 7]], rtol=1e-12)


@EVERY
@pytest.mark.usefixtures("double")
def test_it_is_the_plain_loop(variant: dict[str, Any]) -> None:
    """Top-K by sorting, never padding; every part scaled by its own width; places counted from the newest."""
    made, values = layer(**variant), inputs(decoupled=variant.get("decoupled", False))
    values["mask"][5, 2] = False  # an event whose value is missing
    called(made, values)
    spread(made)
    found = called(made, values)
    main, auxiliary = plain(made, values, top_k=3, target_aware=variant.get("target_aware", True))
    np.testing.assert_allclose(found.main, main, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.auxiliary, auxiliary, rtol=1e-10, atol=1e-12)
    assert not np.allclose(found.main, found.auxiliary), "the search matters here"


@EVERY
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("top_k", [T, 100])
def test_a_search_that_keeps_everything_is_full_attention(variant: dict[str, Any], top_k: int) -> None:
    made = layer(**variant, top_k=top_k)
    found = called(made, inputs(decoupled=variant.get("decoupled", False)))
    np.testing.assert_allclose(found.main, found.auxiliary, rtol=1e-12, atol=1e-14)


@EVERY
@pytest.mark.usefixtures("double")
def test_padding_changes_nothing(variant: dict[str, Any]) -> None:
    """Not even padding that would win every search."""
    made, values = layer(**variant), inputs(decoupled=variant.get("decoupled", False))
    expected = called(made, values)
    longer = {
        name: np.pad(v, [(0, 0), (0, 4), (0, 0)][: v.ndim]) if "target" not in name else v for name, v in values.items()
    }
    for name in {"history", "attention_history"} & longer.keys():
        longer[name][~longer["mask"]] = 1e6 * np.sign(values[name.replace("history", "target")]).repeat(
            (~longer["mask"]).sum(1), axis=0
        )
    found = called(made, longer)
    np.testing.assert_allclose(found.main, expected.main, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.auxiliary, expected.auxiliary, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_an_empty_history_is_zeros_with_finite_gradients() -> None:
    target, history = tf.ones([2, D], tf.float64), tf.ones([2, 4, D], tf.float64)
    made = layer()
    with tf.GradientTape() as tape:
        tape.watch([target, history])
        found = made(target, history, tf.zeros([2, 4], tf.bool))
        loss = tf.reduce_sum(found.main**2 + found.auxiliary**2)
    np.testing.assert_array_equal(found.main, np.tile([1.0] * D + [0.0] * 2 * D, (2, 1)))
    np.testing.assert_array_equal(found.auxiliary, found.main)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, [target, history]))


@EVERY
def test_the_search_is_as_wide_as_its_vectors_and_no_wider(variant: dict[str, Any]) -> None:
    decoupled, time = variant.get("decoupled", False), variant.get("time_dim", 0)
    made, values = layer(**variant), inputs(decoupled=decoupled, dtype="float32")
    found = called(made, values)
    events = made.events(*(tf.constant(v) for name, v in values.items() if "target" not in name))
    assert events.keys.shape == (B, T, (D_A if decoupled else variant.get("projection", D)) + time)
    assert events.values.shape == (B, T, D + time)
    parts = 3 if variant.get("target_aware", True) else 2
    assert found.main.shape == found.auxiliary.shape == (B, parts * (D + time))


@pytest.mark.usefixtures("double")
def test_the_order_of_events_counts_with_time_alone() -> None:
    values = inputs(decoupled=True)
    turned = {name: v[:, ::-1] if "history" in name else v for name, v in values.items()}
    for name in ("history", "attention_history"):
        for row, length in enumerate(LENGTHS):
            turned[name] = turned[name].copy()
            turned[name][row, :length] = values[name][row, :length][::-1]
    made = layer(decoupled=True)
    np.testing.assert_allclose(called(made, turned).main, called(made, values).main, rtol=1e-12)
    timed = layer(decoupled=True, time_dim=2)
    called(timed, values)
    spread(timed)
    assert not np.allclose(called(timed, turned).main[0], called(timed, values).main[0])


def test_events_from_long_ago_share_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 places the last is for the third newest event and all before."""
    monkeypatch.setattr(attention, "PLACES", 4)
    made = layer(time_dim=2, top_k=T)
    events = made.events
    made(tf.zeros([1, D]), tf.zeros([1, T, D]), tf.ones([1, T], tf.bool))
    spread(made)
    (places,) = made.get_weights()
    found = events(tf.zeros([T, D]), tf.range(T) < 5).values.numpy()[:, D:]
    np.testing.assert_array_equal(found, places[[3, 3, 3, 2, 1, 1, 1]])


@EVERY
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("row", [0, 1, 2], ids=["full", "empty", "one-event"])
def test_the_candidates_of_one_user_get_the_numbers_of_the_batch(variant: dict[str, Any], row: int) -> None:
    decoupled = variant.get("decoupled", False)
    made, values = layer(**variant), inputs(decoupled=decoupled)
    called(made, values)
    spread(made)
    repeated = {name: v if "target" in name else np.repeat(v[row : row + 1], B, 0) for name, v in values.items()}
    expected = called(made, repeated).main
    of_user = {name: tf.constant(v[row]) for name, v in values.items() if "target" not in name}
    targets = {name: tf.constant(v) for name, v in values.items() if "target" in name}
    found = made.attend_candidates(made.events(**of_user), **targets)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_a_candidate_costs_no_more_than_its_products_with_the_keys() -> None:
    """No array over candidates, events and widths at once: what the keys' product and the kept events need is all."""
    candidates, events, top_k = 50, 200, 5
    made = layer(decoupled=True, top_k=top_k, time_dim=2)
    made(tf.zeros([1, 16]), tf.zeros([1, 3, 16]), tf.ones([1, 3], tf.bool), tf.zeros([1, 4]), tf.zeros([1, 3, 4]))
    prepared = made.events(tf.zeros([events, 16]), tf.ones([events], tf.bool), tf.zeros([events, 4]))
    graph = tf.function(lambda target, a: made.attend_candidates(prepared, target, a)).get_concrete_function(
        tf.TensorSpec([candidates, 16]), tf.TensorSpec([candidates, 4])
    )
    sizes = {out.shape.num_elements() for op in graph.graph.get_operations() for out in op.outputs}
    assert candidates * events in sizes
    assert max(size for size in sizes if size is not None) == candidates * events


@pytest.mark.parametrize("length", [600, 601, 609, 640])
@pytest.mark.parametrize("values", [10**6, 5], ids=["distinct", "ties"])
def test_a_long_history_is_searched_as_a_short_one(length: int, values: int) -> None:
    """Through maxima of blocks, for lengths that fill them or do not; with the events at the end masked, or nearly all,
    or all but the last.
    """
    assert length >= 3 * attention.LONG
    rng = np.random.default_rng(length)
    scores = rng.integers(0, values, (5, length)).astype(np.float32) / values
    mask = np.arange(length) < np.array([length, length - 7, 2, 0, length])[:, np.newaxis]
    mask[4, :-1] = False
    with tf.GradientTape() as tape:
        given = tf.constant(scores)
        tape.watch(given)
        weights, found = attention.search(given, tf.constant(mask), 3)
        loss = tf.reduce_sum(weights**2)
    gradient = tape.gradient(loss, given).numpy()
    for row, events in enumerate(np.flatnonzero(each) for each in mask):
        kept = found[row].numpy()[weights[row].numpy() > 0]
        assert len(set(kept.tolist())) == len(kept) == min(3, len(events))
        assert mask[row, kept].all()
        best = np.sort(scores[row, events])[::-1][:3]
        np.testing.assert_array_equal(np.sort(scores[row, kept])[::-1], best)
        if len(best):
            np.testing.assert_allclose(np.sort(weights[row])[::-1][: len(best)], softmax(best), rtol=1e-5)
        assert set(np.flatnonzero(gradient[row])) <= set(kept.tolist())
        assert gradient[row].any() or len(set(best.tolist())) < 2
    assert 0 <= found.numpy().min() <= found.numpy().max() < length


@EVERY
def test_every_weight_has_a_gradient_and_depends_on_seed_and_name(variant: dict[str, Any]) -> None:
    made, values = layer(**variant), inputs(decoupled=variant.get("decoupled", False), dtype="float32")
    with tf.GradientTape() as tape:
        found = called(made, values)
        loss = tf.reduce_sum(found.main**2) + tf.reduce_sum(found.auxiliary**2)
    expected = 4 * ("projection" in variant) * (1 + ("time_dim" in variant))
    expected += ("time_dim" in variant) * (1 + variant.get("decoupled", False))
    assert len(made.trainable_variables) == expected
    for gradient in tape.gradient(loss, made.trainable_variables):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0
    tf.random.set_seed(99)
    others = [layer(**variant), layer(**variant, seed=1), layer(**variant, name="other")]
    for other in others:
        called(other, values)
    first, same, *different = [[w.ravel()[:4].tobytes() for w in one.get_weights()] for one in (made, *others)]
    assert first == same
    assert len({*first, *different[0], *different[1]}) == 3 * expected, "no two start with the same numbers"


@EVERY
def test_a_graph_of_any_size_is_saved_and_loaded(variant: dict[str, Any], tmp_path: Path) -> None:
    decoupled = variant.get("decoupled", False)
    made, values = layer(**variant), inputs(decoupled=decoupled, dtype="float32")
    expected = called(made, values)
    width = {
        "target": [D],
        "history": [None, D],
        "mask": [None],
        "attention_target": [D_A],
        "attention_history": [None, D_A],
    }
    specs = {name: tf.TensorSpec([None, *width[name]], v.dtype, name) for name, v in values.items()}
    module = tf.Module()
    module.made = made
    module.serve = tf.function(lambda **given: made(**given)._asdict())
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve.get_concrete_function(**specs))
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for cut in (T, 2, 0):
        part = {name: v[:4] if "target" in name else v[:4, :cut] for name, v in values.items()}
        found = loaded(**{name: tf.constant(v) for name, v in part.items()})
        direct = called(made, part)
        np.testing.assert_allclose(found["main"], direct.main, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found["auxiliary"], direct.auxiliary, rtol=1e-6, atol=1e-7)
        if cut == T:
            np.testing.assert_allclose(found["main"], expected.main[:4], rtol=1e-6, atol=1e-7)


@EVERY
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32_and_gives_halves(variant: dict[str, Any], policy: str) -> None:
    values = inputs(decoupled=variant.get("decoupled", False), dtype="float32")
    half = tf.as_dtype(policy.removeprefix("mixed_"))
    rounded = {n: tf.cast(v, half).numpy() if v.dtype != bool else v for n, v in values.items()}
    keras.mixed_precision.set_global_policy(policy)
    try:
        made = layer(**variant)
        found = called(made, rounded)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.main.dtype == half
    assert {w.dtype for w in made.weights} <= {tf.float32}
    whole = {n: v.astype(np.float32) if v.dtype != bool else v for n, v in rounded.items()}
    expected = called(layer(**variant), whole).main
    np.testing.assert_array_equal(found.main, tf.cast(expected, half))


@EVERY
@pytest.mark.usefixtures("double")
def test_weights_of_the_whole_history_are_those_of_the_auxiliary_head(variant: dict[str, Any]) -> None:
    made, values = layer(**variant), inputs(decoupled=variant.get("decoupled", False))
    found = called(made, values)
    weights = made.weigh(**{name: tf.constant(value) for name, value in values.items()}).numpy()
    np.testing.assert_allclose(weights.sum(1), np.array(LENGTHS) > 0, rtol=1e-12)
    assert not weights[~values["mask"]].any()
    events = made.events(*(tf.constant(v) for n, v in values.items() if n in ("history", "mask", "attention_history")))
    mean = np.einsum("bt,btd->bd", weights, events.values)
    width = mean.shape[1]
    np.testing.assert_allclose(found.auxiliary[:, width : 2 * width], mean, rtol=1e-10, atol=1e-12)


def test_without_an_auxiliary_loss_there_is_no_input_for_one() -> None:
    assert called(layer(auxiliary=0.0), inputs(dtype="float32")).auxiliary is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="projection: maps tables that search and representation share"):
        layer(decoupled=True, projection=4)
    assert AttentionConfig(kind="attention", projection=4).problems(decoupled=False) == []
    with pytest.raises(ValueError, match="a decoupled layer needs attention vectors"):
        called(layer(decoupled=True), inputs())


def test_the_config_round_trips_and_is_strict() -> None:
    config = AttentionConfig(kind="attention", top_k=5, projection=8, time_dim=4, target_aware=False, auxiliary=0.5)
    assert AttentionConfig.model_validate(config.model_dump(mode="json")) == config
    for wrong in ({"top_k": 0}, {"projection": True}, {"time_dim": 0}, {"auxiliary": -1.0}, {"kind": "din"}):
        with pytest.raises(ValidationError):
            AttentionConfig.model_validate({"kind": "attention", **wrong})
