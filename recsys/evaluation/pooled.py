"""What several test parts say together: those of the windows of a backtest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from recsys.evaluation.evidence import Evidence, Measured


def pool(measured: Sequence[Measured]) -> Measured:
    """The evidence of all windows as one, user by user: the user, not the window, is what is drawn.

    A user's value is the weighted mean over the windows that count them, x = Σ w x / Σ w; their weight is Σ w, which is
    the number of those windows where all users of a window weigh 1. So the pooled metric is the mean over all
    (user, window). Metrics and slices that a window lacks are left out: groups of users that go by the data, say, are
    others in every window.

    Args:
        measured: of one recommender on one part; at least one window.
    """
    keys = [key for key in measured[0].slices if all(key in each.slices for each in measured)]
    digests = "\n".join(each.data_digest for each in measured)
    return Measured(
        data_digest=hashlib.sha256(digests.encode()).hexdigest(),
        part=measured[0].part,
        whole=_pooled([each.whole for each in measured]),
        slices={key: _pooled([each.slices[key] for each in measured]) for key in keys},
        slicings=measured[0].slicings,
    )


def _pooled(windows: Sequence[Evidence]) -> Evidence:
    """In the metrics that all of them have."""
    users = np.unique(np.concatenate([each.users for each in windows]))
    metrics = [name for name in windows[0].values if all(name in each.values for each in windows)]
    rows = [np.searchsorted(users, each.users) for each in windows]
    values, weights = {}, {}
    for name in metrics:
        total, weight = np.zeros(len(users)), np.zeros(len(users))
        for row, each in zip(rows, windows, strict=True):
            own = each.weight(name)
            weight[row] += own
            total[row] += np.where(own > 0, own * each.values[name], 0.0)
        values[name] = np.divide(total, weight, out=np.full(len(users), np.nan), where=weight > 0)
        weights[name] = weight
    return Evidence(users, values, weights)
