"""Where each example's history ends."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from recsys.data.config import Split
from recsys.data.dataset import HISTORIES_OF_TRAINING
from recsys.data.prepare.splits import CONTEXT, TRAIN


def with_history(events: ir.Table, split: Split, min_history: int) -> ir.Table:
    """`events` with `before`: int64, the length of the history: the user's eligible positives strictly earlier in time.

    Times are compared, never positions: events at the same moment are in each other's future. Where held-out events
    would stand in the histories of others (`HISTORIES_OF_TRAINING`), training events alone are eligible. Without times
    nothing is known to be earlier, and without users or items there is nothing to be known: every history is empty.
    Negative context events, and negatives with less than `min_history`, are dropped, for they are neither history nor
    example.
    """
    events = events.filter((events.stage != CONTEXT) | (events.label > 0))
    if not {"user_index", "item_index", "time"} <= set(events.columns):
        return events.mutate(before=ibis.literal(0, "int64"))
    eligible = events.label > 0
    if split.kind in HISTORIES_OF_TRAINING:
        eligible &= events.stage == TRAIN
    count = ibis.ifelse(eligible, 1, 0).cast("int64")
    up_to_now = ibis.range_window(preceding=None, following=0, group_by=events.user_index, order_by=events.time)
    now = ibis.window(group_by=[events.user_index, events.time])
    events = events.mutate(before=(count.sum().over(up_to_now) - count.sum().over(now)).cast("int64"))
    return events.filter((events.label > 0) | (events.before >= min_history))


def in_order(events: ir.Table, split: Split) -> ir.Table:
    """The positive events by user, in history order; where histories hold training events only, those come first."""
    positive = events.filter(events.label > 0)
    late = [ibis.ifelse(positive.stage == TRAIN, 0, 1)] if split.kind in HISTORIES_OF_TRAINING else []
    return positive.order_by([positive.user_index, *late, positive.position])
