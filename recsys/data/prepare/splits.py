"""Which part every event belongs to."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from recsys.data.config import ByUserSplit, DataConfig, LeaveLastOut, RandomSplit, TemporalSplit
from recsys.data.dataset import STAGES
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.events import below, digest
from recsys.data.prepare.statistics import values_at

TRAIN, VALID, TEST, CONTEXT = (STAGES[name] for name in ("train", "valid", "test", "context"))


def staged(runner: Runner, events: ir.Table, users: ir.Table, data: DataConfig) -> ir.Table:
    """`events` with `stage`: int8 (dataset.STAGES).

    events: user_index, time, position, digest; users: (user, user_index).
    """
    match data.split:
        case TemporalSplit():
            stage = _temporal(runner, events, data.split)
        case LeaveLastOut():
            stage = _leave_last_out(events)
        case RandomSplit():
            stage = _by_digest(events.digest, data.split)
        case ByUserSplit():
            held = users.select(
                "user_index", part=_by_digest(digest(ibis.literal(str(data.seed)), users.user), data.split)
            )
            events = events.join(held, "user_index")
            stage = _latest(events, data.split.targets)
    return events.mutate(stage=stage.cast("int8")).drop(*({"part"} & set(events.columns)))


def _temporal(runner: Runner, events: ir.Table, split: TemporalSplit) -> ir.IntegerValue:
    """Cut at the times of the first events of the last `valid + test` and `test` shares; equal times go with them."""
    times = events.group_by("time").aggregate(count=lambda t: t.count()).order_by("time")
    total = runner.fetch(events.aggregate(total=events.count()))["total"][0].as_py()
    ranks = [total - round(total * (split.valid + split.test)), total - round(total * split.test)]
    valid_from, test_from = (int(time) for time in values_at(runner.batches(times), [min(r, total - 1) for r in ranks]))
    return ibis.cases((events.time < valid_from, TRAIN), (events.time < test_from, VALID), else_=TEST)


def _leave_last_out(events: ir.Table) -> ir.IntegerValue:
    left = _rows_of_user(events) - 1 - events.position
    short = _rows_of_user(events) < 3
    return ibis.cases((short, TRAIN), (left == 0, TEST), (left == 1, VALID), else_=TRAIN)


def _by_digest(column: ir.StringValue, split: RandomSplit | ByUserSplit) -> ir.IntegerValue:
    return ibis.cases(
        (column < below(split.test), TEST), (column < below(split.test + split.valid), VALID), else_=TRAIN
    )


def _latest(events: ir.Table, targets: float) -> ir.IntegerValue:
    """Of held-out users, the latest share of events (at least one) keeps its part; what came before is context."""
    rows = _rows_of_user(events)
    is_target = rows - events.position <= (rows * targets - 1e-9).ceil()
    return ibis.cases((events.part == TRAIN, TRAIN), (is_target, events.part), else_=CONTEXT)


def _rows_of_user(events: ir.Table) -> ir.IntegerValue:
    return events.count().over(ibis.window(group_by=events.user_index))
