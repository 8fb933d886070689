"""What a recommender would have earned in the place of the policy that logged the events.

At the moment of each logged event the recommender is asked for its top k, of which it shows one, drawn uniformly: so it
shows item a with probability π(a) = 1/k if a is in the top k, else 0. Each event counts by how much more often the
recommender shows the logged item than the logging policy did, w = π(a) / propensity; its reward is its label.

Nothing is excluded from the top k. Whether a server hides what a user has had is its own rule, and the log does show
items again; under such a rule every repeated item would count as one that the recommender never shows.

The estimates hold where the logging policy could have shown whatever the recommender shows: the mean weight is then 1,
up to chance. It is less where the log could not have held some of it, and then nothing is known of that part. Events
that are neither positive nor negative are not prepared, so the estimates are means over the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveInt

from recsys.config.base import Config
from recsys.data.dataset import Part
from recsys.data.prepared import Prepared, dense
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.recommenders import Recommender
from recsys.metrics import Interval, bootstrap_intervals, importance_weights, off_policy
from recsys.ragged import Ragged
from recsys.retrieval.exact import ExactIndex

if TYPE_CHECKING:  # they load TensorFlow, which records do without
    from recsys.embeddings.served import ServedRows
    from recsys.models.two_tower import TwoTower

FEWEST = 100
"""Fewer effective events say little, however many were logged."""
SHARE = 0.01
"""Nor do fewer than this share of the events: a few of them decide about everything."""


class Bounds(Config):
    """Where a true value may lie: the 95% interval over users."""

    low: float
    high: float


class OffPolicyRecord(Config):
    """The mean reward that a policy would have earned on logged events."""

    ips: float
    """Inverse propensity score, the mean of w r: unbiased, unless weights were cut."""
    ips_bounds: Bounds | None
    """None where no event counts, or the events are those of one user."""
    snips: float | None
    """Self-normalised, Σ w r / Σ w: slightly biased, far less spread. None where no event counts."""
    snips_bounds: Bounds | None
    mean_weight: NonNegativeFloat
    """1, up to chance, where the logging policy could show all that this one shows; less if weights were cut."""
    effective_samples: NonNegativeFloat
    """(Σ w)² / Σ w²: so many events of the policy's own would say as much."""
    clipped: NonNegativeFloat
    """Share of the events whose weight was cut to `evaluation.clip`."""
    events: PositiveInt
    users: PositiveInt
    warning: str | None = None
    """Why the estimates are not to be trusted."""


@dataclass(frozen=True)
class Log:
    """E logged events."""

    users: NDArray[np.integer]
    """[E] who was shown an item."""
    items: NDArray[np.integer]
    """[E] which one."""
    rewards: NDArray[np.floating]
    """[E] what came of it."""
    propensities: NDArray[np.float64]
    """[E] in (0, 1], the probability with which it was chosen."""

    @classmethod
    def of(cls, examples: pa.Table) -> Self:
        """From a part's examples, positive and negative."""
        columns = ("user_index", "item_index", "label", "propensity")
        return cls(*(examples[name].to_numpy() for name in columns))


def two_tower_off_policy(
    model: TwoTower,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    served: Mapping[str, ServedRows] | None = None,
) -> dict[str, OffPolicyRecord]:
    """`model`, `popularity` (of the training part), and beside them `logged`: what the logging policy did earn.

    The policies show one of their top `config.ks[0]`.

    Args:
        model: trained.
        prepared: of a schema that names propensities.
        part: the events.
        config: cut-offs, the clip, the size of a block.
        served: from a bundle's rows, by table, in place of the trained ones.

    Raises:
        DataError: the part has no examples, or a vector is not finite.
    """
    from recsys.evaluation.baselines.rankings import FixedOrder  # as above

    moments = _Moments(prepared, part)
    log = Log.of(moments.examples)
    index = ExactIndex(model.item_vectors(prepared.item_features, served))
    policies: dict[str, Recommender] = {
        "model": _AtEvents(model, index, moments, served),
        "popularity": FixedOrder(np.argsort(-prepared.train_count, kind="stable"), len(log.items)),
    }
    found = {name: estimate(policy, log, config) for name, policy in policies.items()}
    return found | {"logged": estimate_of(log.propensities, log)}


def estimate(recommender: Recommender, log: Log, config: EvaluationConfig) -> OffPolicyRecord:
    """What a recommender, whose users are the E events, would earn by showing one of its top `config.ks[0]`.

    Raises:
        DataError: a vector of the recommender is not finite.
    """
    shown = [
        _chance(recommender, log.items, start, min(start + config.users_per_block, len(log.items)), config.ks[0])
        for start in range(0, len(log.items), config.users_per_block)
    ]
    return estimate_of(np.concatenate(shown), log, config.clip)


def _chance(recommender: Recommender, items: NDArray[np.integer], start: int, stop: int, k: int) -> NDArray[np.float64]:
    """[stop - start] probability with which the logged item is shown at each of these events."""
    nothing = Ragged(np.empty(0, np.int32), np.zeros(stop - start + 1, np.int64))
    top = recommender.recommend(np.arange(start, stop), k, nothing)
    return (top == items[start:stop, None]).any(1) / (top >= 0).sum(1)


def estimate_of(target: NDArray[np.float64], log: Log, clip: float | None = None) -> OffPolicyRecord:
    """What a policy would earn that chooses the logged items with the probabilities `target` [E].

    Args:
        target: in [0, 1].
        log: the events.
        clip: the largest weight; None leaves them.

    Raises:
        ValueError: a probability is out of range.
    """
    found = off_policy(log.rewards, log.propensities, target, clip=clip)
    weights = importance_weights(log.propensities, target, clip=clip)
    _, user = np.unique(log.users, return_inverse=True)
    events, weight, earned = np.bincount(user), np.bincount(user, weights), np.bincount(user, weights * log.rewards)
    # Both estimates are ratios of sums over users, who are drawn independently; their events are not.
    of_users = np.stack([events, weight], axis=1)
    ratios = np.divide(earned[:, None], of_users, out=np.zeros_like(of_users), where=of_users > 0)
    ips, snips = bootstrap_intervals(ratios, of_users)
    counts = found.effective_samples > 0
    return OffPolicyRecord(
        ips=found.ips,
        ips_bounds=_bounds(ips) if counts else None,
        snips=found.snips if counts else None,
        snips_bounds=_bounds(snips),
        mean_weight=float(weights.mean()),
        effective_samples=found.effective_samples,
        clipped=found.clipped,
        events=found.events,
        users=len(events),
        warning=_warning(found.effective_samples, found.events),
    )


def _bounds(interval: Interval | None) -> Bounds | None:
    return None if interval is None else Bounds(low=interval.low, high=interval.high)


def _warning(effective: float, events: int) -> str | None:
    if effective >= max(FEWEST, SHARE * events):
        return None
    if effective == 0:
        return f"none of {events:,} logged items would have been shown: the log says nothing of this policy"
    return (
        f"{events:,} logged events say as much as {effective:,.0f} of the policy's own would, so few decide; "
        "log more of what it would show, or set evaluation.clip"
    )


class _Moments:
    """The queries of a part at the moment of each of its E examples."""

    def __init__(self, prepared: Prepared, part: Part) -> None:
        self._prepared = prepared
        self._context = prepared.names("context")
        time = ["time"] if prepared.info.has_time else []
        columns = ["user_index", "item_index", "label", "propensity", "history_stop", *time, *self._context]
        self.examples = prepared.examples(part, columns)

    def queries(self, rows: NDArray[np.integer]) -> dict[str, NDArray]:
        """Those of some of the examples, as in a batch."""
        prepared, table = self._prepared, self.examples.take(pa.array(rows))
        context = {name: dense(table[name], prepared.info, name) for name in self._context}
        time = table["time"].to_numpy() if prepared.info.has_time else None
        return prepared.query_features(table["user_index"].to_numpy(), table["history_stop"].to_numpy(), context, time)


@dataclass(frozen=True)
class _AtEvents:
    """A two-tower model that is asked at the moment of each event; queries are embedded when they are needed."""

    model: TwoTower
    index: ExactIndex
    moments: _Moments
    served: Mapping[str, ServedRows] | None

    @property
    def users(self) -> int:
        """E."""
        return len(self.moments.examples)

    @property
    def items(self) -> int:
        """N."""
        return self.index.size

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`."""
        vectors = self.model.query_vectors(self.moments.queries(rows), self.served)
        return self.index.search(vectors, k, exclude).ids
