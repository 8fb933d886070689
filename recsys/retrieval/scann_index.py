"""Approximate search by ScaNN. The pybind searcher is the live index; `in_graph` makes snapshots of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import PositiveInt, ValidationError

from recsys._scann import load_scann
from recsys.config.base import Config
from recsys.errors import BundleError
from recsys.ragged import Ragged
from recsys.retrieval.config import ScannConfig
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.folder import load_vectors, new_folder
from recsys.retrieval.index import VECTORS, Neighbours, Vectors, checked_search

SEARCHER, FACTS = "scann", "scann.json"
QUERIES = 4_096
"""Queries handed to ScaNN at once: bounds the memory of a search."""
MOST_EXTRA = 1_000
"""Candidates fetched beyond k for the sake of `exclude`; who excludes more of what was found is searched exactly."""


class ScannFacts(Config):
    """`scann.json`: what the searcher's own files do not tell."""

    size: PositiveInt
    dim: PositiveInt
    config: ScannConfig
    """With nothing left out."""


class ScannIndex:
    """Maximum inner product search that finds most of the best, fast. Linux on x86-64; elsewhere use `ExactIndex`.

    ScaNN finds candidates and excluded ones are dropped; whoever is left with fewer than k is searched again exactly,
    so that no result is shorter than it must be.
    """

    def __init__(self, searcher: Any, vectors: Vectors, config: ScannConfig) -> None:
        """Wrap a ScaNN (pybind) `searcher` without docids over `vectors`; use `build` or `load`."""
        self.searcher = searcher
        self.config = config
        self._exact = ExactIndex(vectors)

    @classmethod
    def build(cls, vectors: ArrayLike, config: ScannConfig | None = None) -> Self:
        """Index `vectors` [N, d] float32.

        Raises:
            DataError: a value is NaN or infinite.
            InstallError: ScaNN is missing or does not fit TensorFlow.
            ValueError: more leaves than N items can fill.
        """
        exact = ExactIndex(vectors)
        config = (config or ScannConfig()).for_size(exact.size)
        assert config.leaves is not None
        assert config.reorder is not None
        pybind = load_scann().scann_ops_pybind
        builder = pybind.builder(exact.vectors, min(exact.size, config.recall_at), "dot_product")
        if config.leaves == 0:
            builder.score_brute_force()
        else:
            builder.tree(config.leaves, config.leaves_to_search, training_sample_size=min(exact.size, 250_000))
            builder.score_ah(config.dimensions_per_block, config.anisotropic_threshold)
            builder.reorder(config.reorder)
        return cls(builder.build(), exact.vectors, config)

    @property
    def vectors(self) -> Vectors:
        """[N, d] float32."""
        return self._exact.vectors

    @property
    def size(self) -> int:
        """N."""
        return self._exact.size

    @property
    def dim(self) -> int:
        """d."""
        return self._exact.dim

    def search(self, queries: ArrayLike, k: int, exclude: Ragged | None = None) -> Neighbours:
        """As `Index.search`, approximately."""
        array = checked_search(self, queries, k, exclude)
        ids = np.empty((len(array), k), np.int32)
        scores = np.empty((len(array), k), np.float32)
        for start in range(0, len(array), QUERIES):
            rows = slice(start, min(start + QUERIES, len(array)))
            without = exclude.slice(rows.start, rows.stop) if exclude is not None else None
            ids[rows], scores[rows] = self._search(array[rows], k, without)
        return Neighbours(ids, scores)

    def _search(self, queries: Vectors, k: int, exclude: Ragged | None) -> Neighbours:
        extra = 0 if exclude is None else min(int(exclude.lengths.max(initial=0)), MOST_EXTRA)
        found = self._candidates(queries, k + extra)
        legal = found.ids >= 0
        if exclude is not None:
            legal &= ~exclude.contains(found.ids)
        best = np.argsort(~legal, axis=1, kind="stable")[:, :k]
        ids, scores = np.take_along_axis(found.ids, best, 1), np.take_along_axis(found.scores, best, 1)
        short = np.flatnonzero(legal.sum(axis=1) < k)
        if len(short):
            ids[short], scores[short] = self._exact.search(
                queries[short], k, exclude.take(short) if exclude is not None else None
            )
        return Neighbours(ids, scores)

    def _candidates(self, queries: Vectors, count: int) -> Neighbours:
        """ScaNN's best [Q, count]; -1 where it found fewer."""
        assert self.config.reorder is not None
        fetched = min(count, self.size)
        search = self.searcher.search_batched if len(queries) == 1 else self.searcher.search_batched_parallel
        ids, scores = search(
            queries, final_num_neighbors=fetched, pre_reorder_num_neighbors=max(fetched, self.config.reorder)
        )
        # Where ScaNN finds fewer than asked for it gives id 0 with score NaN.
        found = ~np.isnan(scores)
        padding = ((0, 0), (0, count - fetched))
        return Neighbours(
            np.pad(np.where(found, ids.astype(np.int32), -1), padding, constant_values=-1),
            np.pad(np.where(found, scores, np.float32(-np.inf)), padding, constant_values=-np.inf),
        )

    def save(self, folder: Path) -> None:
        """As `Index.save`: `vectors.npy`, `scann.json`, the searcher in `scann/` (no pickle, relative paths)."""
        with new_folder(folder) as draft:
            np.save(draft / VECTORS, self.vectors)
            facts = ScannFacts(size=self.size, dim=self.dim, config=self.config)
            (draft / FACTS).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
            self.save_searcher(draft / SEARCHER)

    def save_searcher(self, folder: Path) -> None:
        """Write ScaNN's own files into a new folder."""
        folder.mkdir()
        self.searcher.serialize(str(folder), relative_path=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote. Verify the digests of files you do not trust first: ScaNN's own parser reads them.

        Raises:
            BundleError: files are missing, unreadable or of another index.
            InstallError: ScaNN is missing or does not fit TensorFlow.
        """
        vectors = load_vectors(folder)
        try:
            facts = ScannFacts.model_validate_json((folder / FACTS).read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(str(folder / FACTS), f"cannot be read ({error})", cure="export it again") from error
        if vectors.shape != (facts.size, facts.dim):
            raise BundleError(
                str(folder), f"{VECTORS} has shape {vectors.shape}", f"{(facts.size, facts.dim)}", "export it again"
            )
        return cls(_load_searcher(folder / SEARCHER, facts.size), vectors, facts.config)


def _load_searcher(folder: Path, size: int) -> Any:
    pybind = load_scann().scann_ops_pybind
    if (folder / "scann_docids.pkl").exists():
        raise BundleError(str(folder / "scann_docids.pkl"), "is a pickle, which could run anything", "no docids")
    try:
        searcher = pybind.load_searcher(str(folder), assets_backcompat_shim=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(str(folder), f"ScaNN cannot load it ({error})", cure="export it again") from error
    if searcher.size() != size:
        raise BundleError(str(folder), f"holds {searcher.size()} vectors", str(size), "export it again")
    return searcher
