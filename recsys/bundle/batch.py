"""Answers for many at once, block by block: recommendations for users, scores of pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.columns import arrays_of
from recsys.bundle.manifest import CategoricalField, MultiValuedField, further_score
from recsys.bundle.users import RAW
from recsys.errors import DataError
from recsys.files import draft_folder
from recsys.retrieval.index import Neighbours

USERS_AT_ONCE, PAIRS_AT_ONCE = 1_024, 4_096
CANDIDATES = 500
"""Items that a ranker puts in order for each user, unless the caller says otherwise."""


def recommend(bundle: Bundle, users: NDArray[np.integer], k: int, candidates: int = CANDIDATES) -> Iterator[pa.Table]:
    """The best `k` items of each of these known users (rows of `bundle.users`), without those that they have met. Each
    asks at the time of the newest event, and without context.

    Yields a table for each block of users: `user`, `rank` (from 1), `item`, `score`; where the bundle has a ranker, the
    score is its own, of `candidates` retrieved items, and `retrieval_score` stands beside it.

    Raises:
        BundleError: the bundle cannot retrieve.
    """
    for start in range(0, len(users), USERS_AT_ONCE):
        rows = users[start : start + USERS_AT_ONCE]
        vectors = bundle.query_tower(bundle.queries(rows, bundle.manifest.request))
        wanted = k if bundle.manifest.ranking is None else max(k, candidates)
        found = bundle.index.search(vectors, wanted, bundle.users.all_seen(rows))
        yield _told(bundle, rows, found, None if bundle.manifest.ranking is None else _ranked(bundle, rows, found), k)


def _ranked(bundle: Bundle, rows: NDArray[np.integer], found: Neighbours) -> NDArray[np.float32]:
    """[B, K] the ranker's scores of what was found; -inf where there is nothing."""
    queries = bundle.queries(rows, bundle.ranking.request)
    scores = np.full(found.ids.shape, -np.inf, np.float32)
    for n, ids in enumerate(found.ids):
        there = ids >= 0
        query = {name: array[n : n + 1] for name, array in queries.items()}
        scores[n, there] = bundle.candidate_ranker({**query, **bundle.candidates(ids[there])})
    return scores


def _told(
    bundle: Bundle, rows: NDArray[np.integer], found: Neighbours, ranked: NDArray[np.float32] | None, k: int
) -> pa.Table:
    scores = found.scores if ranked is None else ranked
    order = np.argsort(-np.where(found.ids >= 0, scores, -np.inf), axis=1, kind="stable")[:, :k]
    ids, retrieved, best = (np.take_along_axis(each, order, 1) for each in (found.ids, found.scores, scores))
    there = ids >= 0
    user, rank = np.nonzero(there)
    columns = {
        "user": bundle.users.table["user"].take(pa.array(rows[user])),
        "rank": pa.array(rank + 1, pa.int32()),
        "item": bundle.items["item"].take(pa.array(ids[there])),
        "score": pa.array(best[there]),
    }
    return pa.table(columns | ({} if ranked is None else {"retrieval_score": pa.array(retrieved[there])}))


def score_pairs(bundle: Bundle, pairs: pa.Table, place: str) -> Iterator[pa.Table]:
    """The ranker's scores of pairs of a known `user` and an `item` of the catalogue; columns named as context features
    are read as such, those that are not there are missing.

    Yields a table for each block of pairs: `user`, `item`, `score`, and `score_NAME` of each further head.

    Args:
        bundle: with a ranker.
        pairs: their rows.
        place: names them in errors.

    Raises:
        BundleError: the bundle has no ranker.
        DataError: a column is missing or of a wrong type, or names a user or an item that the bundle does not know.
    """
    ranking = bundle.ranking
    users = rows_of(pairs, "user", bundle.users.table["user"], place)
    items = rows_of(pairs, "item", bundle.items["item"], place)
    context = {n: f for n, f in ranking.request.items() if f.role == "context" and n in pairs.column_names}
    for name, field in context.items():
        kind = pairs[name].type
        if isinstance(field, CategoricalField | MultiValuedField) and pa.types.is_floating(kind):
            raise DataError(f"{place}: column {name!r}", f"{kind}", "text or integers", "write categories as text")
    given = pairs.select(list(context)).rename_columns([f"{RAW}{name}" for name in context])
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        rows = np.arange(start, min(start + PAIRS_AT_ONCE, len(pairs)))
        arrays = bundle.queries(users[part], ranking.request)
        try:
            arrays |= arrays_of(given, context, rows)
        except pa.ArrowException as error:
            found = f"the context cannot be read ({error})"
            raise DataError(place, found, "values that fit their features", "mend them") from error
        scored = bundle.ranker.all(arrays | bundle.candidates(items[part]))
        scores = {name: pa.array(scored[name]) for name in ("score", *map(further_score, ranking.heads))}
        ids = {name: pairs[name].slice(start, len(rows)).cast(pa.string()) for name in ("user", "item")}
        yield pa.table(ids | scores)


def rows_of(table: pa.Table, column: str, known: pa.ChunkedArray, place: str) -> NDArray[np.int64]:
    """The rows of `known` ids that a column of a table names.

    Raises:
        DataError: there is no such column, or it names one that is not known.
    """
    if column not in table.column_names:
        there = ", ".join(table.column_names)
        raise DataError(place, f"no column {column!r} beside {there}", "ids", "add it, or rename another")
    ids = table[column].cast(pa.large_string())
    at = pc.index_in(ids, value_set=known.cast(pa.large_string()))
    if at.null_count:
        unknown = ids.filter(pc.is_null(at))
        found = f"{len(unknown):,} ids that the bundle does not know, such as {unknown[0].as_py()!r}"
        raise DataError(f"{place}: column {column!r}", found, f"a known {column}", "leave these rows out")
    return at.to_numpy().astype(np.int64)


def write_parquet(path: Path, tables: Iterable[pa.Table]) -> int:
    """Writes the tables, one after the other, as one Parquet file, which is there whole or not at all.

    Returns:
        The number of rows.

    Raises:
        DataError: there is nothing to write.
    """
    count, writer = 0, None
    with draft_folder(path) as folder:
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(folder / path.name, table.schema)
                writer.write_table(table)
                count += len(table)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(str(path), "there is nothing to write", "users or pairs", "name some")
        os.replace(folder / path.name, path)
    return count
