"""Which part every event belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from recsys.data.config import (
    SHARE_DIGITS,
    ByUserSplit,
    ColdItemsSplit,
    ColdUsersSplit,
    DataConfig,
    LeaveLastOut,
    RandomSplit,
    TemporalSplit,
)
from recsys.data.dataset import STAGES
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.events import below, digest
from recsys.data.prepare.statistics import values_at

TRAIN, VALID, TEST, CONTEXT = (STAGES[name] for name in ("train", "valid", "test", "context"))


@dataclass(frozen=True)
class Moments:
    """Where a temporal split cuts time: a part holds the events from its moment on, up to the next one's."""

    train: int | None
    """What came before is context; None: all of it trains."""
    valid: int
    test: int
    end: int | None
    """What comes from here on is held back; None: nothing is."""

    @classmethod
    def of(cls, runner: Runner, events: ir.Table, split: TemporalSplit) -> Moments:
        """The times of the first events of the newest shares: of `valid + test + held_back`, and so on.

        events: every event, those to be held back included; there is at least one.
        """
        times = events.group_by("time").aggregate(count=lambda t: t.count()).order_by("time")
        total = runner.fetch(events.aggregate(total=events.count()))["total"][0].as_py()
        back = split.held_back or 0.0
        valid, test, end = (_before(total, share) for share in (back + split.held_out, back + split.test, back))
        ranks = [_before(valid, split.train or 1.0), valid, test, end]
        train_from, *moments = (
            int(time) for time in values_at(runner.batches(times), [min(rank, total - 1) for rank in ranks])
        )
        return cls(
            train=None if split.train is None else train_from,
            valid=moments[0],
            test=moments[1],
            end=None if split.held_back is None else moments[2],
        )

    def known(self, events: ir.Table) -> ir.Table:
        """The events that are not held back."""
        return events if self.end is None else events.filter(events.time < self.end)

    def stage(self, time: ir.IntegerValue) -> ir.IntegerValue:
        """The stage of an event that is not held back."""
        older = [] if self.train is None else [(time < self.train, CONTEXT)]
        return ibis.cases(*older, (time < self.valid, TRAIN), (time < self.test, VALID), else_=TEST)


def _before(events: int, share: float) -> int:
    """How many events come before the newest `share` of them."""
    return events - round(events * round(share, SHARE_DIGITS))


def staged(events: ir.Table, users: ir.Table, items: ir.Table, data: DataConfig, moments: Moments | None) -> ir.Table:
    """`events` with `stage`: int8 (dataset.STAGES).

    events: user_index, item_index, time, position, digest; users: (user, user_index); items: (item, item_index).
    moments: of a temporal split.
    """
    match data.split:
        case TemporalSplit():
            assert moments is not None
            stage = moments.stage(events.time)
        case LeaveLastOut():
            stage = _leave_last_out(events)
        case RandomSplit():
            stage = _by_digest(events.digest, data.split)
        case ByUserSplit():
            events = _with_part(events, users, "user", data.split, data.seed)
            stage = _latest(events, data.split.targets)
        case ColdUsersSplit():
            events = _with_part(events, users, "user", data.split, data.seed)
            stage = events.part
        case ColdItemsSplit():
            events = _with_part(events, items, "item", data.split, data.seed)
            stage = events.part
    return events.mutate(stage=stage.cast("int8")).drop(*({"part"} & set(events.columns)))


def _with_part(
    events: ir.Table,
    entities: ir.Table,
    entity: Literal["user", "item"],
    split: ByUserSplit | ColdUsersSplit | ColdItemsSplit,
    seed: int,
) -> ir.Table:
    """`events` with `part`, the stage of its whole user or item."""
    part = _by_digest(digest(ibis.literal(str(seed)), entities[entity]), split)
    return events.join(entities.select(f"{entity}_index", part=part), f"{entity}_index")


def _leave_last_out(events: ir.Table) -> ir.IntegerValue:
    left = _rows_of_user(events) - 1 - events.position
    short = _rows_of_user(events) < 3
    return ibis.cases((short, TRAIN), (left == 0, TEST), (left == 1, VALID), else_=TRAIN)


def _by_digest(
    column: ir.StringValue, split: RandomSplit | ByUserSplit | ColdUsersSplit | ColdItemsSplit
) -> ir.IntegerValue:
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
