"""Evaluating a model on a prepared part: the right queries, the right metrics, the baseline beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recsys.data.dataset import Part
from recsys.data.prepared import HeldOut, Prepared
from recsys.data.reader import Examples
from recsys.embeddings.served import ServedRows
from recsys.errors import DataError
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.evidence import Evidence
from recsys.evaluation.pointwise import evaluate_ranking, user_values
from recsys.evaluation.retrieval import evaluate_popularity, evaluate_retrieval
from recsys.models.base import EmbeddingModel
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower
from recsys.retrieval.exact import ExactIndex

SCORED = 8_192
"""Examples that a ranker scores at once."""


@dataclass(frozen=True)
class Evaluated:
    """What a part says of a model and its baseline."""

    metrics: dict[str, dict[str, float]]
    """`model` and the baseline (`popularity` or `base_rate`) -> metric -> value."""
    counts: dict[str, int]
    evidence: dict[str, Evidence] = field(default_factory=dict)
    """`model` and the baseline -> one value for each user; empty for a validation."""


def evaluate_model(
    model: EmbeddingModel,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    *,
    baseline: bool = True,
    served: Mapping[str, ServedRows] | None = None,
) -> Evaluated:
    """A two-tower model by full-catalogue ranking, a ranker by its probabilities, each beside a trivial baseline.

    Without `baseline` the model's metrics alone, for validations: the baseline is the same in all of them. With
    `served`, as it is served: from a bundle's rows, by table, in place of the trained ones.

    Raises:
        DataError: the part has nobody to evaluate, labels of one kind only, or a vector is not finite.
    """
    if isinstance(model, TwoTower):
        held_out = _held_out(prepared, part)
        index = ExactIndex(model.item_vectors(prepared.item_features, served))
        found = (held_out.relevant, held_out.seen, prepared.train_count, config)
        result = evaluate_retrieval(index, model.query_vectors(held_out.query, served), *found)
        results = {"model": result} | ({"popularity": evaluate_popularity(*found)} if baseline else {})
        evaluated = len(result.users)
        # Users who stand in no example of the part count too: all of them are left out of the means.
        counts = {"users_evaluated": evaluated, "users_without_relevant": prepared.info.counts.users - evaluated}
        users = held_out.user_index[result.users]
        return Evaluated(
            {name: each.summary() for name, each in results.items()},
            counts,
            {name: _evidence(prepared, part, users, each.per_user, {}) for name, each in results.items() if baseline},
        )
    if isinstance(model, Ranker):
        labels, logits, weights, by = scores(model, prepared, part, served)
        predicted = {"model": 1.0 / (1.0 + np.exp(-logits))}
        if baseline:
            predicted["base_rate"] = np.full(len(labels), np.average(labels, weights=weights))
        evidence = {
            name: _evidence(prepared, part, *user_values(labels, p, weights, by))
            for name, p in predicted.items()
            if baseline
        }
        metrics = {name: evaluate_ranking(labels, p, weights, by) for name, p in predicted.items()}
        return Evaluated(metrics, {"examples_evaluated": len(labels)}, evidence)
    raise TypeError(f"no evaluation for a {type(model).__name__}")


def _evidence(
    prepared: Prepared, part: Part, users: np.ndarray, values: dict[str, np.ndarray], weights: dict[str, np.ndarray]
) -> Evidence:
    names = prepared.users["user"].to_numpy()[users].astype(np.str_)
    return Evidence(prepared.info.digest, part, names, values, weights)


def _held_out(prepared: Prepared, part: Part) -> HeldOut:
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


def scores(
    model: Ranker, prepared: Prepared, part: Part, served: Mapping[str, ServedRows] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """([n] labels, [n] logits, [n] weights) of all examples of a part, as float64, and [n] their users' index."""
    examples = Examples(prepared, part, batch_size=1, seed=None)
    columns: list[tuple[np.ndarray, ...]] = []
    for batch in examples.whole(SCORED):
        logits = model.score(batch, served).numpy()
        columns.append((batch["label"].numpy(), logits, batch["weight"].numpy(), batch["user_index"].numpy()))
    labels, logits, weights, users = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return labels.astype(np.float64), logits.astype(np.float64), weights.astype(np.float64), users
