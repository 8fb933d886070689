"""Linear models of who met what, to hold retrieval models to: EASE and iALS, ranked and measured by the same code.

Both learn from the positive training events alone, each pair of user and item once; a user is what she has met before
the part under test. Settings are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from recsys.data.dataset import HISTORIES_OF_TRAINING, STAGES, Part
from recsys.data.prepared import Prepared
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.model import held_out_users, retrieval_task
from recsys.evaluation.retrieval import evaluate_retrieval
from recsys.ragged import Ragged

Matrix = sparse.csr_array
Scores = Callable[[Matrix], NDArray[np.float32]]
"""From what some users have met [n, N] to their scores of all items [n, N]."""
CELLS = 1 << 23
"""Users times items that are ranked at once."""
LARGEST = 20_000
"""Items that EASE is tried with: its matrix is dense, and inverted."""
EASE_GRID = (100.0, 200.0, 500.0, 1000.0)
"""λ"""
IALS_GRID = tuple((alpha, rate) for alpha in (0.1, 0.3, 1.0) for rate in (0.001, 0.003, 0.01))
"""Weight of all pairs, and regularisation of one pair."""
IALS_DIM, IALS_SWEEPS = 64, 12


@dataclass(frozen=True)
class ByScores:
    """Ranks by dense scores."""

    scores: Scores
    met: Matrix
    """[Q, N]"""

    @property
    def users(self) -> int:
        """Q."""
        return int(self.met.shape[0])

    @property
    def items(self) -> int:
        """N."""
        return int(self.met.shape[1])

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`."""
        found = np.full((len(rows), k), -1, np.int32)
        step, best = max(1, CELLS // self.items), min(k, self.items)
        for start in range(0, len(rows), step):
            block = slice(start, min(start + step, len(rows)))
            scores = self.scores(self.met[rows[block]])
            gone = exclude.slice(block.start, block.stop)
            scores[gone.row_of_value, gone.values] = -np.inf
            top = np.argpartition(-scores, best - 1, axis=1)[:, :best]
            top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)
            left = np.isfinite(np.take_along_axis(scores, top, 1))
            found[block, :best] = np.where(left, top, -1)
        return found


def ease(trained: Matrix, rate: float) -> Scores:
    """EASE (Steck, WWW 2019): the items' weights B that least-squares reconstruct each row of X from the other items.

    P = (XᵀX + λI)⁻¹;   B_ij = -P_ij / P_jj, 0 on the diagonal
    """
    gram = np.asfortranarray((trained.T @ trained).toarray(), np.float32)
    gram[np.diag_indices_from(gram)] += rate
    factor, _ = linalg.lapack.spotrf(gram, overwrite_a=True)
    inverse, _ = linalg.lapack.spotri(factor, overwrite_c=True)
    inverse = np.triu(inverse) + np.triu(inverse, 1).T
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return lambda met: np.asarray(met @ weights, np.float32)


def ials(trained: Matrix, alpha: float, rate: float, seed: int = 0) -> Scores:
    """iALS (Hu et al., ICDM 2008) as Rendle et al. set it up (RecSys 2022): least squares on what was met, and with
    weight alpha on all pairs; a user's regularisation grows with the pairs that she has a part in.
    """
    rng = np.random.default_rng(seed)
    items = rng.normal(scale=0.1 / np.sqrt(IALS_DIM), size=(trained.shape[1], IALS_DIM))
    for _ in range(IALS_SWEEPS):
        users = _solved(trained, items, alpha, rate)
        items = _solved(trained.T.tocsr(), users, alpha, rate)
    return lambda met: np.asarray(_solved(met, items, alpha, rate) @ items.T, np.float32)


def _solved(met: Matrix, other: NDArray[np.float64], alpha: float, rate: float) -> NDArray[np.float64]:
    """[n, d] the vectors that fit rows of `met` [n, m] best, given the columns' [m, d]."""
    gram = alpha * other.T @ other
    found = np.zeros((met.shape[0], other.shape[1]))
    for row in range(met.shape[0]):
        own = other[met.indices[met.indptr[row] : met.indptr[row + 1]]]
        if len(own):
            regular = rate * (len(own) + alpha * len(other)) * np.eye(other.shape[1])
            found[row] = linalg.solve(gram + own.T @ own + regular, own.sum(0), assume_a="pos")
    return found


def tuned(prepared: Prepared, config: EvaluationConfig, monitor: str) -> dict[str, Any]:
    """By baseline: the settings that validate best, what each validated, and the test metrics."""
    trained = _pairs(prepared, prepared.events.stage == STAGES["train"])
    grids: dict[str, list[tuple[str, Callable[[], Scores]]]] = {
        "ials": [(f"alpha {a:g}, rate {r:g}", lambda a=a, r=r: ials(trained, a, r)) for a, r in IALS_GRID]
    }
    if trained.shape[1] <= LARGEST:
        grids["ease"] = [(f"rate {rate:g}", lambda rate=rate: ease(trained, rate)) for rate in EASE_GRID]
    return {name: _best(prepared, config, monitor, grid) for name, grid in grids.items()}


def _best(
    prepared: Prepared, config: EvaluationConfig, monitor: str, grid: list[tuple[str, Callable[[], Scores]]]
) -> dict[str, Any]:
    tried: dict[str, float] = {}
    best: tuple[str, Scores] | None = None
    for name, fit in grid:
        scores = fit()
        tried[name] = _measured(prepared, "valid", config, scores)[monitor]
        if best is None or tried[name] > tried[best[0]]:
            best = name, scores
    assert best is not None
    return {"settings": best[0], "validation": tried, "metrics": _measured(prepared, "test", config, best[1])}


def _measured(prepared: Prepared, part: Part, config: EvaluationConfig, scores: Scores) -> Mapping[str, float]:
    held_out = held_out_users(prepared, part)
    known = held_out.seen
    if prepared.info.split in HISTORIES_OF_TRAINING:
        known = prepared.seen_before("valid").take(held_out.user_index)
    met = _matrix(known.row_of_value, known.values, (len(known), len(prepared.train_count)))
    return evaluate_retrieval(
        ByScores(scores, met), retrieval_task(prepared, held_out, config, sliced=False), config
    ).summary()


def _pairs(prepared: Prepared, which: NDArray[np.bool_]) -> Matrix:
    user = np.repeat(np.arange(len(prepared.event_start) - 1), np.diff(prepared.event_start))
    shape = (len(prepared.event_start) - 1, len(prepared.train_count))
    return _matrix(user[which], prepared.events.item_index[which], shape)


def _matrix(row: NDArray[np.integer], column: NDArray[np.integer], shape: tuple[int, int]) -> Matrix:
    found = sparse.csr_array((np.ones(len(row), np.float32), (row, column)), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    return found
