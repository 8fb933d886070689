"""Items that were met one after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import STAGES
from recsys.data.prepared import Prepared


class Pairs(NamedTuple):
    """P times that a user met an item, and another one soon after."""

    first: NDArray[np.int32]
    """[P] item indices."""
    then: NDArray[np.int32]
    """[P] item indices."""


def pairs_of(prepared: Prepared, window: int) -> Pairs:
    """All pairs of different items within `window` training events of a user, the earlier one first; events of one time
    are a basket, whose pairs count in both directions.
    """
    events = prepared.events
    trained = events.stage == STAGES["train"]
    user = np.repeat(np.arange(len(prepared.event_start) - 1), np.diff(prepared.event_start))[trained]
    item = events.item_index[trained]
    time = None if events.time is None else events.time[trained]
    first, then = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    for distance in range(1, window + 1):
        earlier, later = slice(0, max(0, len(item) - distance)), slice(distance, None)
        paired = (user[earlier] == user[later]) & (item[earlier] != item[later])
        first.append(item[earlier][paired])
        then.append(item[later][paired])
        if time is not None:
            basket = paired & (time[earlier] == time[later])
            first.append(item[later][basket])
            then.append(item[earlier][basket])
    return Pairs(np.concatenate(first), np.concatenate(then))
