"""Evaluating a model on a prepared part: the right queries, the right metrics, the baseline beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.data.dataset import Part
from recsys.data.prepared import HeldOut, Prepared
from recsys.data.reader import Examples
from recsys.embeddings.served import ServedRows
from recsys.errors import DataError
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.pointwise import evaluate_ranking
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

    Without `baseline` the model alone, for validations: the baseline is the same in all of them. With `served`, as it
    is served: from a bundle's rows, by table, in place of the trained ones.

    Raises:
        DataError: the part has nobody to evaluate, labels of one kind only, or a vector is not finite.
    """
    if isinstance(model, TwoTower):
        held_out = _held_out(prepared, part)
        index = ExactIndex(model.item_vectors(prepared.item_features, served))
        found = (held_out.relevant, held_out.seen, prepared.train_count, config)
        result = evaluate_retrieval(index, model.query_vectors(held_out.query, served), *found)
        metrics = {"model": result.summary()}
        if baseline:
            metrics["popularity"] = evaluate_popularity(*found).summary()
        evaluated = len(result.users)
        # Users who stand in no example of the part count too: all of them are left out of the means.
        counts = {"users_evaluated": evaluated, "users_without_relevant": prepared.info.counts.users - evaluated}
        return Evaluated(metrics, counts)
    if isinstance(model, Ranker):
        labels, logits, weights = scores(model, prepared, part, served)
        metrics = {"model": evaluate_ranking(labels, 1.0 / (1.0 + np.exp(-logits)), weights)}
        if baseline:
            constant = np.full(len(labels), metrics["model"]["base_rate"])
            metrics["base_rate"] = evaluate_ranking(labels, constant, weights)
        return Evaluated(metrics, {"examples_evaluated": len(labels)})
    raise TypeError(f"no evaluation for a {type(model).__name__}")


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([n] labels, [n] logits, [n] weights) of all examples of a part, as float64."""
    examples = Examples(prepared, part, batch_size=1, seed=None)
    columns: list[tuple[np.ndarray, ...]] = []
    for batch in examples.whole(SCORED):
        logits = model.score(batch, served).numpy()
        columns.append((batch["label"].numpy(), logits, batch["weight"].numpy()))
    labels, logits, weights = (np.concatenate(parts).astype(np.float64) for parts in zip(*columns, strict=True))
    return labels, logits, weights
