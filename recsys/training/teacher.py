"""A trained run as the teacher of another one's item tower."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.data.dataset import STAGES
from recsys.data.prepared import Prepared
from recsys.errors import ConfigError
from recsys.models.two_tower import TwoTower
from recsys.objectives.distillation import Teacher

PLACE = "model.item.distill.teacher"


def teacher_of(prepared: Prepared, width: int, teacher: TwoTower, taught: Prepared) -> Teacher:
    """A teacher's vectors of the items of `prepared`, known by their texts.

    Args:
        prepared: the student's data.
        width: of the student's vectors.
        teacher: trained.
        taught: the data that the teacher was trained on.

    Raises:
        ConfigError: the teacher has seen events that the student is held to; its vectors are of another width; or it
            knows none of the items.
    """
    seen = np.isin(_events(taught, "train"), np.concatenate([_events(prepared, "valid"), _events(prepared, "test")]))
    if seen.any():
        raise ConfigError(
            PLACE,
            f"was trained on {seen.sum():,} events of this run's validation or test part",
            "a teacher that was trained before the cut",
            "train it with the same data.split and seed",
        )
    vectors = teacher.item_vectors(taught.item_features)
    if vectors.shape[1] != width:
        found = f"its vectors have {vectors.shape[1]} numbers, and this item tower ends in {width}"
        raise ConfigError(PLACE, found, "one width", "set output_dim of both towers to the teacher's")
    rows = pd.Index(taught.items["item"].to_pylist()).get_indexer(pd.Index(prepared.items["item"].to_pylist()))
    known = (rows >= 0) & (taught.train_count[rows] > 0)
    if not known.any():
        raise ConfigError(PLACE, "knows none of the items", "a run on the same catalogue", "name another run")
    return Teacher(np.where(known[:, None], vectors[rows], 0.0).astype(np.float32), known)


def _events(prepared: Prepared, stage: str) -> np.ndarray:
    """[E] a hash of user, item and time of each positive event of a stage."""
    events = prepared.events
    chosen = events.stage == STAGES[stage]
    user = np.repeat(np.arange(len(prepared.event_start) - 1), np.diff(prepared.event_start))[chosen]
    columns = {
        "user": prepared.users["user"].to_numpy()[user],
        "item": prepared.items["item"].to_numpy()[events.item_index[chosen]],
        "time": events.time[chosen] if events.time is not None else np.zeros(int(chosen.sum()), np.int64),
    }
    return pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()
