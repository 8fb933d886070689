"""Approximate search by ScaNN. The pybind searcher is the live index; `in_graph` makes snapshots of it."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import PositiveInt, ValidationError

from recsys._scann import load_scann
from recsys.config.base import Config
from recsys.errors import BundleError
from recsys.ragged import Ragged
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.catalogue import Catalogue
from recsys.retrieval.config import ScannConfig
from recsys.retrieval.curve import Curve, Setting
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.folder import new_folder
from recsys.retrieval.index import VECTORS, Neighbours, Vectors, checked_search
from recsys.retrieval.rows import Rows

SEARCHER, FACTS = "scann", "scann.json"
QUERIES = 4_096
"""Queries handed to ScaNN at once: bounds the memory of a search."""
MOST_EXTRA = 1_000
"""Candidates fetched beyond k for the sake of `exclude`; who excludes more of what was found is searched exactly."""
FEW_ALLOWED = 20_000
"""So many items are scored exactly in less time than ScaNN takes to find enough candidates."""
TRIES = 2
"""How often ScaNN is asked, the second time deeper, before those who still lack allowed items are searched exactly."""
RESCORED = 1 << 24
"""Numbers held at once while candidates are scored again by all dimensions."""
DEEPER = 4
"""The second time at least so many times as deep."""
SPARE = 1.3
"""Candidates fetched, in multiples of those that hold k allowed ones on average."""


class ScannFacts(Config):
    """`scann.json`: what the searcher's own files do not tell."""

    size: PositiveInt
    dim: PositiveInt
    config: ScannConfig
    """With nothing left out."""
    asked: ScannConfig
    """As it was asked for: what it leaves out is tuned again, should the index be built anew."""


class ScannIndex:
    """Maximum inner product search that finds most of the best, fast. Linux on x86-64; elsewhere use `ExactIndex`.

    ScaNN finds candidates, and those that are not legal are dropped. What is asked of it is as deep as its k legal ones
    are likely to lie; whoever is left with fewer is searched again, deeper or exactly, so that no result is shorter
    than it must be. Where few items are allowed, those are scored exactly at once.
    """

    def __init__(
        self,
        searcher: Any,
        catalogue: Catalogue,
        config: ScannConfig,
        asked: ScannConfig | None = None,
        curve: Curve | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Wrap a ScaNN (pybind) `searcher` without docids over what is there of `catalogue`; use `build` or `load`.

        Args:
            searcher: of as many vectors as `rows` has places.
            catalogue: the vectors, of full width.
            config: with nothing left out.
            asked: the config, but for what was left to be tuned.
            curve: what it was measured to do, if it was tuned.
            rows: from the searcher's places to ids; by default the ids as they rise.
        """
        self.searcher = searcher
        self.config = config
        self.asked = asked or config
        self.curve = curve
        self.exact = ExactIndex(catalogue)
        self.rows = rows or Rows(catalogue.there, catalogue.size)

    @classmethod
    def build(cls, vectors: ArrayLike | Catalogue, config: ScannConfig | None = None) -> Self:
        """Index `vectors` [N, d] float32, untuned: `tune` finds the setting that keeps a promise.

        Raises:
            DataError: a value is NaN or infinite.
            InstallError: ScaNN is missing or does not fit TensorFlow.
            ValueError: more leaves than N items can fill, or a prefix longer than the vectors.
        """
        catalogue = vectors if isinstance(vectors, Catalogue) else Catalogue(vectors)
        there = catalogue.vectors if catalogue.alive is None else catalogue.vectors[catalogue.there]
        asked = config or ScannConfig()
        config = asked.for_size(len(there))
        if config.prefix is not None and config.prefix > there.shape[1]:
            raise ValueError(f"prefix is {config.prefix}, but vectors have {there.shape[1]} dimensions; leave it out")
        known = np.ascontiguousarray(there[:, : config.prefix])
        builder = load_scann().scann_ops_pybind.builder(known, min(len(known), config.depth), "dot_product")
        if config.leaves == 0:
            builder.score_brute_force()
        else:
            builder.tree(config.leaves, config.leaves_to_search, training_sample_size=min(len(known), 250_000))
            builder.score_ah(config.dimensions_per_block, config.anisotropic_threshold)
            builder.reorder(config.reorder)
        return cls(builder.build(), catalogue, config, asked)

    @property
    def catalogue(self) -> Catalogue:
        """The vectors, and which are there."""
        return self.exact.catalogue

    @property
    def vectors(self) -> Vectors:
        """[N, d] float32."""
        return self.exact.vectors

    @property
    def alive(self) -> Allowed | None:
        """As `Index.alive`."""
        return self.exact.alive

    @property
    def size(self) -> int:
        """N."""
        return self.exact.size

    @property
    def dim(self) -> int:
        """d."""
        return self.exact.dim

    @property
    def setting(self) -> Setting:
        """How it searches for the best `config.depth`."""
        assert self.config.leaves_to_search is not None
        assert self.config.reorder is not None
        return Setting(leaves_to_search=self.config.leaves_to_search, reorder=self.config.reorder)

    def search(
        self, queries: ArrayLike, k: int, exclude: Ragged | None = None, allowed: Allowed | None = None
    ) -> Neighbours:
        """As `Index.search`, approximately."""
        array = checked_search(self, queries, k, exclude, allowed)
        legal = None if allowed is None else self.catalogue.legal(allowed)
        if legal is not None and len(legal) <= FEW_ALLOWED:
            return self.exact.search(array, k, exclude, legal)
        ids = np.empty((len(array), k), np.int32)
        scores = np.empty((len(array), k), np.float32)
        for start in range(0, len(array), QUERIES):
            rows = slice(start, min(start + QUERIES, len(array)))
            without = exclude.slice(rows.start, rows.stop) if exclude is not None else None
            ids[rows], scores[rows] = self._search(array[rows], k, without, legal)
        return Neighbours(ids, scores)

    def _search(self, queries: Vectors, k: int, exclude: Ragged | None, allowed: Allowed | None) -> Neighbours:
        found = Neighbours(np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32))
        extra = 0 if exclude is None else min(int(exclude.lengths.max(initial=0)), MOST_EXTRA)
        depth, rows = k + extra, np.arange(len(queries))
        if allowed is not None:
            depth = ceil(SPARE * depth * len(self.rows) / len(allowed))
        for _ in range(TRIES):
            setting = self.setting_for(depth)
            if setting is None:
                break
            without = exclude.take(rows) if exclude is not None else None
            got, counts = self._legal(queries[rows], k, depth, setting, without, allowed)
            full = counts >= k
            found.ids[rows[full]], found.scores[rows[full]] = got.ids[full], got.scores[full]
            rows, counts = rows[~full], counts[~full]
            if not len(rows) or allowed is None:
                break
            # Far from these queries fewer are legal than among all items: they lie deeper, if these counts go on.
            depth = max(DEEPER * depth, ceil(SPARE * depth * k / max(1, int(np.median(counts)))))
        if len(rows):
            without = exclude.take(rows) if exclude is not None else None
            found.ids[rows], found.scores[rows] = self.exact.search(queries[rows], k, without, allowed)
        return found

    def _legal(
        self, queries: Vectors, k: int, depth: int, setting: Setting, exclude: Ragged | None, allowed: Allowed | None
    ) -> tuple[Neighbours, NDArray[np.int64]]:
        """Among the best `depth` of all items those that a query may get: the first k, and how many there are."""
        found = self.candidates(queries, depth, setting)
        if exclude is None and allowed is None:
            return found, (found.ids >= 0).sum(axis=1)
        legal = found.ids >= 0
        if exclude is not None:
            legal &= ~exclude.contains(found.ids)
        if allowed is not None:
            legal &= allowed.mask[found.ids]
        best = np.argsort(~legal, axis=1, kind="stable")[:, :k]
        first = Neighbours(np.take_along_axis(found.ids, best, 1), np.take_along_axis(found.scores, best, 1))
        return first, legal.sum(axis=1)

    def setting_for(self, depth: int) -> Setting | None:
        """What finds the best `depth` with the promised recall; None where nothing is known to."""
        if self.curve is None or not self.curve.depths:
            assert self.config.reorder is not None
            return self.setting.model_copy(update={"reorder": max(self.config.reorder, depth)})
        return next((each for each in self.curve.depths if each.depth >= min(depth, len(self.rows))), None)

    def candidates(self, queries: Vectors, count: int, setting: Setting) -> Neighbours:
        """ScaNN's best [Q, count], by all dimensions; -1 where it found fewer."""
        fetched = min(count, len(self.rows))
        if self.config.prefix is None:
            places, scores = self._scann(queries, fetched, setting)
        else:
            known = np.ascontiguousarray(queries[:, : self.config.prefix])
            widened = min(len(self.rows), max(fetched, setting.reorder))
            places, scores = self._by_all_dimensions(queries, *self._scann(known, widened, setting), fetched)
        found = scores > -np.inf
        ids = np.full((len(queries), count), -1, np.int32)
        ids[:, :fetched] = np.where(found, self.rows.ids[places], -1)
        padded = np.full((len(queries), count), -np.inf, np.float32)
        padded[:, :fetched] = scores
        return Neighbours(ids, padded)

    def _scann(self, queries: Vectors, count: int, setting: Setting) -> tuple[NDArray[np.uint32], Vectors]:
        """Places and scores [Q, count] by what the searcher knows; scores of -inf where it found fewer."""
        search = self.searcher.search_batched if len(queries) == 1 else self.searcher.search_batched_parallel
        places, scores = search(
            queries,
            final_num_neighbors=count,
            pre_reorder_num_neighbors=max(count, setting.reorder),
            leaves_to_search=setting.leaves_to_search,
        )
        # Where ScaNN finds fewer than asked for it gives place 0 with score NaN.
        return places, np.where(np.isnan(scores), np.float32(-np.inf), scores)

    def _by_all_dimensions(
        self, queries: Vectors, places: NDArray[np.uint32], scores: Vectors, count: int
    ) -> tuple[NDArray[np.uint32], Vectors]:
        """The best `count` of the candidates by their vectors' full width."""
        whole = np.full(scores.shape, -np.inf, np.float32)
        step = max(1, RESCORED // (places.shape[1] * self.dim))
        for start in range(0, len(queries), step):
            rows = slice(start, start + step)
            vectors = self.vectors[self.rows.ids[places[rows]]]
            whole[rows] = np.matmul(vectors, queries[rows, :, np.newaxis])[..., 0]
        whole[np.isneginf(scores)] = -np.inf
        best = np.argsort(-whole, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(places, best, 1), np.take_along_axis(whole, best, 1)

    def upsert(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """As `Index.upsert`. The leaves and codes stay what they were trained to be: see `upkeep`."""
        found, rows = self.catalogue.checked(ids, vectors)
        places = self.rows.places(found)
        known = np.ascontiguousarray(rows[:, : self.config.prefix])
        self.searcher.searcher.upsert([None if place < 0 else place for place in places.tolist()], known, 1)
        self.rows.append(found[places < 0])
        self.exact.put(found, rows)

    def delete(self, ids: ArrayLike) -> None:
        """As `Index.delete`."""
        gone = self.catalogue.delete(ids)
        if len(gone):
            self.searcher.searcher.delete(self.rows.remove(gone))

    def save(self, folder: Path) -> None:
        """As `Index.save`: what the catalogue writes, `scann.json`, the searcher in `scann/` (no pickle, relative
        paths), `curve.json` if it was tuned, and `rows.npy` once items have been deleted.
        """
        with new_folder(folder) as draft:
            self.catalogue.save(draft)
            facts = ScannFacts(size=self.size, dim=self.dim, config=self.config, asked=self.asked)
            (draft / FACTS).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
            if self.curve is not None:
                self.curve.save(draft)
            if not np.array_equal(self.rows.ids, self.catalogue.there):
                self.rows.save(draft)
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
        catalogue = Catalogue.load(folder)
        try:
            facts = ScannFacts.model_validate_json((folder / FACTS).read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(str(folder / FACTS), f"cannot be read ({error})", cure="export it again") from error
        if catalogue.vectors.shape != (facts.size, facts.dim):
            found, expected = f"{VECTORS} has shape {catalogue.vectors.shape}", f"{(facts.size, facts.dim)}"
            raise BundleError(str(folder), found, expected, "export it again")
        rows = Rows.load(folder, catalogue.there, catalogue.size)
        searcher = _load_searcher(folder / SEARCHER, len(rows))
        return cls(searcher, catalogue, facts.config, facts.asked, Curve.load(folder), rows)


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
