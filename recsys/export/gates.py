"""What an export refuses, whatever the index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ExportError
from recsys.metrics import effective_rank


def refuse_collapsed(vectors: NDArray[np.float32], min_rank: float | None) -> None:
    """Whether the item vectors [N, d] make use of as many directions as they should.

    Raises:
        ExportError: their effective rank (RankMe) is below `min_rank`.
    """
    if min_rank is None:
        return
    rank = effective_rank([vectors])
    if rank < min_rank:
        raise ExportError(
            "retrieval.min_rank",
            f"the effective rank of the item vectors is {rank:.1f} of {vectors.shape[1]}",
            f"at least {min_rank:g}",
            "see rank_item in the training's log: lower model.ssl.weight or the learning rates, raise the temperature, "
            "or lower the promise",
        )
