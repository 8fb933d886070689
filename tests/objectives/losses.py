"""Losses on made-up vectors: the item tower is a matrix whose row n is item n's vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.objectives.config import RetrievalLossConfig
from recsys.objectives.retrieval import RetrievalLoss

CONFIG: TypeAdapter[RetrievalLossConfig] = TypeAdapter(RetrievalLossConfig)


def loss_over(
    vectors: tf.Tensor | tf.Variable,
    counts: ArrayLike | None = None,
    prefixes: Sequence[int] = (),
    normalize: bool = False,
    users: int = 0,
    step: tf.Variable | None = None,
    **config: Any,
) -> RetrievalLoss:
    """A loss, uncorrected and of temperature 1 unless the config says otherwise, whose items have these vectors."""
    size = vectors.shape[0]
    catalogue = Catalogue(np.ones(size) if counts is None else counts, {"id": np.arange(size, dtype=np.int32)}, users)
    plain = {"temperature": 1.0, **({"log_q": None} if config.get("kind", "in_batch_softmax")[:2] == "in" else {})}
    return RetrievalLoss(
        CONFIG.validate_python(plain | config),
        catalogue,
        lambda features, training: tf.gather(vectors, features["id"]),
        seed=3,
        step=tf.Variable(0, dtype=tf.int64) if step is None else step,
        prefixes=prefixes,
        normalize=normalize,
    )


def losses_of(loss: RetrievalLoss, query: ArrayLike, items: Sequence[int], **more: Any) -> tf.Tensor:
    """Of queries [b, d] and their items."""
    index = tf.constant(items, tf.int32)
    return loss(tf.convert_to_tensor(query, tf.float32), {"id": index}, index, **more)
