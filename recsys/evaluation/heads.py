"""What a ranker's further heads are measured by: the examples whose label is known, under `NAME.METRIC`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from recsys.evaluation.evidence import Evidence
from recsys.evaluation.pointwise import Examples, Values, evaluate_ranking, user_values
from recsys.metrics import logloss


@dataclass(frozen=True)
class Scored:
    """Examples whose label is known, and a head's log-odds of it."""

    examples: Examples
    logits: Values
    """[n]"""

    @property
    def probabilities(self) -> Values:
        """[n] of label 1."""
        return np.asarray(expit(self.logits))

    @property
    def weighs(self) -> bool:
        """Whether there is anything to be measured by."""
        return bool(self.examples.weights.any())

    def known(self) -> Scored:
        """Without the examples whose label is NaN."""
        known = ~np.isnan(self.examples.labels)
        return Scored(self.examples.take(known), self.logits[known])


def head_metrics(heads: Mapping[str, Scored]) -> dict[str, float]:
    """As `evaluate_ranking` of each head; `NAME.logloss` and `NAME.base_rate` alone where all labels are the same, and
    nothing where none is known.
    """
    found = dict[str, float]()
    for name, head in heads.items():
        found |= {f"{name}.{metric}": value for metric, value in _metrics(head).items()}
    return found


def _metrics(head: Scored) -> dict[str, float]:
    examples, probabilities = head.examples, head.probabilities
    if not head.weighs:
        return {}
    if examples.one_class:
        loss = logloss(examples.labels, probabilities, examples.weights)
        return {"logloss": loss, "base_rate": examples.base_rate}
    return evaluate_ranking(examples.labels, probabilities, examples.weights, examples.named_users)


def head_doubts(heads: Mapping[str, Scored]) -> Iterator[str]:
    """Which heads could not be measured, or not in full."""
    for name, head in heads.items():
        if not head.weighs:
            yield f"label {name!r} is known of no example: nothing is measured of its head"
        elif head.examples.one_class:
            value, count = head.examples.base_rate, len(head.examples.labels)
            yield f"label {name!r} is {value:g} in all {count} examples: there is no {name}.auc"


def beside(whole: Evidence, heads: Mapping[str, Scored], names: NDArray[np.str_]) -> Evidence:
    """The evidence of the label that ranks, and that of further heads; users without known labels weigh 0 in theirs.

    Args:
        whole: of all users.
        heads: of the same part.
        names: of the users [U of the data set].
    """
    values, weights = dict(whole.values), dict(whole.weights)
    for name, head in heads.items():
        if head.weighs:
            own = user_values(head.examples, head.probabilities).evidence(names)
            rows = np.searchsorted(whole.users, own.users)
            for metric in own.values:
                key = f"{name}.{metric}"
                values[key], weights[key] = np.full(len(whole.users), np.nan), np.zeros(len(whole.users))
                values[key][rows], weights[key][rows] = own.values[metric], own.weight(metric)
    return replace(whole, values=values, weights=weights)
