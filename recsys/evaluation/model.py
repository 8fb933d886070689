"""Evaluating a model on a prepared part: the right queries, the right metrics, the slices, the baselines beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.config import MAIN_LABEL
from recsys.data.dataset import Part
from recsys.data.prepared import HeldOut, Prepared, dense
from recsys.data.reader import Examples as Reader
from recsys.embeddings.served import ServedRows
from recsys.errors import DataError
from recsys.evaluation.baselines import retrieval_baselines, score_baselines
from recsys.evaluation.categories import Categories, category_ids
from recsys.evaluation.config import EvaluationConfig, FeatureSlices, slicing_definitions
from recsys.evaluation.evidence import MODEL, Evidence, Measured, SliceKey
from recsys.evaluation.heads import Scored, beside, head_doubts, head_metrics
from recsys.evaluation.off_policy import OffPolicyRecord, two_tower_off_policy
from recsys.evaluation.pointwise import BINS, BLOCKS, Examples, blocks_of, evaluate_order, evaluate_ranking, user_values
from recsys.evaluation.recommenders import Nearest, Recommender
from recsys.evaluation.retrieval import SLICED, RetrievalResult, Task, evaluate_retrieval
from recsys.evaluation.showcase import Showcase, recommended, scored_examples
from recsys.evaluation.slices import Slicing, context_slicings, history_slicings, item_slicings, user_slicings
from recsys.metrics import Calibration, calibration
from recsys.metrics.pointwise import TINIEST
from recsys.models.base import EmbeddingModel
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower
from recsys.retrieval.exact import ExactIndex

SCORED = 8_192
"""Examples that a ranker scores at once."""


@dataclass(frozen=True)
class Evaluated:
    """What a part says of a model and its baselines."""

    metrics: dict[str, dict[str, float]]
    """`model` and each baseline -> metric -> value."""
    counts: dict[str, int]
    measured: dict[str, Measured] = field(default_factory=dict)
    """`model` and each baseline -> one value for each user; empty for a validation."""
    calibration: Calibration | None = None
    """Of a ranker."""
    off_policy: dict[str, OffPolicyRecord] = field(default_factory=dict)
    """`model` and baselines, where the log tells propensities."""
    warnings: tuple[str, ...] = ()
    """What could not be measured."""
    showcase: Showcase | None = None
    """What the model shows to a few users; None for a validation, and where the log names nobody."""


def evaluate_model(
    model: EmbeddingModel,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    *,
    validation: bool = False,
    served: Mapping[str, ServedRows] | None = None,
) -> Evaluated:
    """A two-tower model by full-catalogue ranking, a ranker by its probabilities, each beside its baselines.

    A `validation` gives the model's metrics alone: no baselines, no slices, no values of users. With `served`, as it is
    served: from a bundle's rows, by table, in place of the trained ones.

    Raises:
        DataError: the part has nobody to evaluate, labels of one kind only, or a vector is not finite.
    """
    if isinstance(model, TwoTower):
        return _evaluate_two_tower(model, prepared, part, config, validation, served)
    if isinstance(model, Ranker):
        return _evaluate_ranker(model, prepared, part, config, validation, served)
    raise TypeError(f"no evaluation for a {type(model).__name__}")


def _evaluate_two_tower(
    model: TwoTower,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    validation: bool,
    served: Mapping[str, ServedRows] | None,
) -> Evaluated:
    held_out = held_out_users(prepared, part)
    index = ExactIndex(model.item_vectors(prepared.item_features, served))
    recommenders: dict[str, Recommender] = {MODEL: Nearest(index, model.query_vectors(held_out.query, served))}
    if not validation:
        recommenders |= retrieval_baselines(prepared, held_out, config)
    task = retrieval_task(prepared, held_out, config, sliced=not validation)
    results = {name: evaluate_retrieval(each, task, config) for name, each in recommenders.items()}
    evaluated = len(results[MODEL].users)
    # Users who stand in no example of the part count too: all of them are left out of the means.
    counts = {"users_evaluated": evaluated, "users_without_relevant": prepared.info.counts.users - evaluated}
    metrics = {name: each.summary() for name, each in results.items()}
    if validation:
        return Evaluated(metrics, counts)
    measured = {name: measured_retrieval(prepared, part, held_out, config, each) for name, each in results.items()}
    policies = {}
    if prepared.info.table_schema.propensity is not None:
        policies = two_tower_off_policy(model, prepared, part, config, served)
    showcase = recommended(recommenders[MODEL], held_out, prepared, part, config.ks[-1])
    return Evaluated(metrics, counts, measured, off_policy=policies, showcase=showcase)


def held_out_users(prepared: Prepared, part: Part) -> HeldOut:
    """The users of a part.

    Raises:
        DataError: none of them has an item to be found.
    """
    held_out = prepared.held_out(part)
    if not (held_out.relevant.difference(held_out.seen).lengths > 0).any():
        raise DataError(
            f"{prepared.info.name}: {part}",
            "no user has a positive that is new to them",
            "at least one",
            "enlarge the share in data.split, or use other events",
        )
    return held_out


def retrieval_task(prepared: Prepared, held_out: HeldOut, config: EvaluationConfig, *, sliced: bool) -> Task:
    """What the held-out users are to be shown; `sliced`: with what goes beyond the accuracy for all."""
    if not sliced:
        return Task(held_out.relevant, held_out.seen, prepared.train_count)
    return Task(
        held_out.relevant,
        held_out.seen,
        prepared.train_count,
        gain=None if prepared.info.table_schema.weight is None else held_out.gain,
        categories=None if config.category is None else Categories(category_ids(prepared, config.category)),
        slicings=item_slicings(prepared, config),
    )


def measured_retrieval(
    prepared: Prepared, part: Part, held_out: HeldOut, config: EvaluationConfig, result: RetrievalResult
) -> Measured:
    """A result as evidence: of all users, of the slices of the items, of the users, and of the queries' context."""
    names = _user_names(prepared)[held_out.user_index[result.users]]
    whole = Evidence.of(names, result.per_user)
    slices: dict[SliceKey, Evidence] = {
        (each.by, each.name): Evidence.of(names[each.rows], each.per_user) for each in result.slices
    }
    slicings = [each.take(held_out.user_index) for each in user_slicings(prepared, config)]
    sliced = [f"{metric}@{k}" for metric in SLICED for k in config.ks]
    for slicing in (*slicings, *context_slicings(prepared, config, held_out.context)):
        members = slicing.take(result.users).members
        slices |= {(slicing.by, name): whole.take(np.flatnonzero(m), sliced) for name, m in members.items()}
    return Measured(prepared.info.digest, part, whole, slices, slicing_definitions(config))


def _evaluate_ranker(
    model: Ranker,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    validation: bool,
    served: Mapping[str, ServedRows] | None,
) -> Evaluated:
    heads = scores(model, prepared, part, served)
    main = heads.pop(MAIN_LABEL)
    examples, y, w, by = main.examples, main.examples.labels, main.examples.weights, main.examples.named_users
    predicted = {MODEL: main.probabilities}
    counts = {"examples_evaluated": len(y)}
    if validation:
        return Evaluated({MODEL: evaluate_ranking(y, predicted[MODEL], w, by) | head_metrics(heads)}, counts)
    predicted["base_rate"] = np.full(len(y), _training_rate(prepared))
    further = {MODEL: heads, "base_rate": _training_rates(prepared, heads)}
    ordered = score_baselines(prepared, part, config)
    metrics = {name: evaluate_ranking(y, p, w, by) | head_metrics(further[name]) for name, p in predicted.items()}
    metrics |= {name: evaluate_order(y, s, w, by) for name, s in ordered.items()}
    slicings = list(_example_slicings(prepared, part, config))
    names = _unit_names(prepared, part)
    measured = {}
    for name, each in (predicted | ordered).items():
        whole = user_values(examples, each, probabilities=name in predicted).evidence(names)
        whole = beside(whole, further.get(name, {}), names)
        slices = _example_slices(examples, each, name in predicted, slicings, names)
        measured[name] = Measured(prepared.info.digest, part, whole, slices, slicing_definitions(config))
    curve = calibration(y, predicted[MODEL], w, bins=BINS)
    warnings = (*head_doubts(heads), *_left_out(prepared, config))
    showcase = scored_examples(predicted[MODEL], prepared, part)
    return Evaluated(metrics, counts, measured, curve, warnings=warnings, showcase=showcase)


def _example_slicings(prepared: Prepared, part: Part, config: EvaluationConfig) -> Iterator[Slicing]:
    """The divisions of a part's n examples."""
    for entity, slicings in (("item", item_slicings), ("user", user_slicings)):
        if entity in prepared.info.table_schema.ids:
            index = prepared.examples(part, [f"{entity}_index"])[f"{entity}_index"].to_numpy()
            for each in slicings(prepared, config):
                yield each.take(index)
    roles = {name: info.role for name, info in prepared.info.features.items()}
    sliced = [each.feature for each in config.slices if isinstance(each, FeatureSlices)]
    described = [name for name in sliced if roles[name] == "context"]
    context = prepared.examples(part, described)
    features = {name: dense(context[name], prepared.info, name) for name in described}
    yield from context_slicings(prepared, config, features)
    yield from history_slicings(prepared, part, config)


def _example_slices(
    examples: Examples, scores: NDArray, probabilities: bool, slicings: list[Slicing], names: NDArray[np.str_]
) -> dict[SliceKey, Evidence]:
    found = {}
    for slicing in slicings:
        for name, chosen in slicing.members.items():
            if examples.weights[chosen].any():
                values = user_values(examples.take(chosen), scores[chosen], probabilities=probabilities)
                found[slicing.by, name] = values.evidence(names)
    return found


def _training_rate(prepared: Prepared) -> float:
    """Weighted share of label 1: what anybody could have said before the part under test."""
    train = prepared.examples("train", ["label", "weight"])
    return float(np.average(train["label"].to_numpy(), weights=train["weight"].to_numpy()))


def _training_rates(prepared: Prepared, heads: Mapping[str, Scored]) -> dict[str, Scored]:
    """Of the heads' labels, likewise: the log-odds of the share of 1 among the training examples that have them."""
    found = {}
    for name, head in heads.items():
        label = prepared.info.labels[name]
        rate = min(max(label.positive / label.known, TINIEST), 1 - TINIEST)
        found[name] = Scored(head.examples, np.full(len(head.logits), np.log(rate / (1 - rate))))
    return found


def _user_names(prepared: Prepared) -> NDArray[np.str_]:
    return prepared.users["user"].to_numpy().astype(np.str_)


def _unit_names(prepared: Prepared, part: Part) -> NDArray[np.str_]:
    """Of the users; of the blocks of a part's examples, where the log names none."""
    if prepared.info.table_schema.user is not None:
        return _user_names(prepared)
    blocks = min(BLOCKS, getattr(prepared.info.counts, part))
    return np.array([f"block {number:05d}" for number in range(blocks)])


def _left_out(prepared: Prepared, config: EvaluationConfig) -> Iterator[str]:
    """What cannot be said of a log that does not name everybody."""
    schema = prepared.info.table_schema
    if schema.user is None:
        yield f"the log names no users: no gauc, and intervals are over blocks of examples, at most {BLOCKS:,}"
    needs = {"user_activity": schema.user, "returning": schema.user, "item_frequency": schema.item}
    skipped = [name for name in slicing_definitions(config) if name in needs and needs[name] is None]
    if skipped:
        yield f"the log does not name whom slices go by: none of {', '.join(skipped)}"
    if not schema.has_histories:
        missing = "popularity and histories" if schema.item is None else "histories"
        yield f"the log does not name both users and items: no baselines of {missing}, and copies are not looked for"


def scores(
    model: Ranker, prepared: Prepared, part: Part, served: Mapping[str, ServedRows] | None = None
) -> dict[str, Scored]:
    """Every head: the examples of a part whose label is known, and their log-odds."""
    reader = Reader(prepared, part, batch_size=1, seed=None)
    own, labels, logits = list[Any](), list[Any](), list[Any]()
    for batch in reader.whole(SCORED):
        found = model.scores(batch, served)
        own.append((batch["weight"].numpy(), batch.get("user_index", batch["weight"]).numpy()))
        labels.append({MAIN_LABEL: batch["label"], **batch.get("labels", {})})
        logits.append({name: each.numpy() for name, each in found.items()})
    weights, users = (np.concatenate(parts) for parts in zip(*own, strict=True))
    in_blocks = prepared.info.table_schema.user is None
    users = blocks_of(len(weights)) if in_blocks else users

    def column(parts: list[Any], name: str) -> NDArray[np.float64]:
        return np.concatenate([part[name] for part in parts]).astype(np.float64)

    def scored(name: str) -> Scored:
        examples = Examples(column(labels, name), weights.astype(np.float64), users, in_blocks)
        return Scored(examples, column(logits, name)).known()

    return {name: scored(name) for name in model.heads}
