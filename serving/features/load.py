"""The users of a bundle into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.bundle.bundle import Bundle
from recsys.bundle.layout import USERS
from recsys.bundle.users import RAW
from recsys.errors import BundleError
from serving.features.store import FeatureStore, LoadState, StoredUser

BLOCK = 10_000
"""Users read and written at once."""


def load(bundle: Bundle, store: FeatureStore, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Put all users of a bundle into a store, block by block; one that was interrupted goes on where it was.

    A bundle without times gives the events of a history the times 0, 1, ...

    Args:
        bundle: of which `users.parquet` is read.
        store: that gets them; what it has of users beside stays.
        progress: is told how many rows are done, and how many there are.

    Returns:
        How many users were put; fewer than the bundle has after an interruption.

    Raises:
        BundleError: the file cannot be read.
        StoreError: the store fails.
    """
    path, manifest = bundle.folder / USERS, bundle.manifest
    digest, unit = manifest.files[USERS].sha256, manifest.timestamp_unit
    try:
        file = pq.ParquetFile(path)
        total = file.metadata.num_rows
        before = store.load_state()
        same = before is not None and before.users == digest and before.timestamp_unit == unit
        start = before.rows if same and before is not None and before.rows < total else 0
        done = 0
        progress(start, total)
        for batch in file.iter_batches(BLOCK):
            end = done + len(batch)
            if end > start:
                store.put(dict(_users(batch, bundle.items["item"])))
                store.set_load_state(LoadState(digest, unit, end))
                progress(end, total)
            done = end
    except (OSError, pa.ArrowException) as error:
        raise BundleError(str(path), f"cannot be read ({error})", "Parquet", "export the run again") from error
    return total - start


def _users(batch: pa.RecordBatch, items: pa.ChunkedArray) -> Iterator[tuple[str, StoredUser]]:
    histories, seen = _ids(batch.column("history"), items), _ids(batch.column("seen"), items)
    if "history_time" in batch.schema.names:
        times = batch.column("history_time").to_pylist()
    else:
        times = [list(range(len(history))) for history in histories]
    raw = [name for name in batch.schema.names if name.startswith(RAW)]
    names = [name.removeprefix(RAW) for name in raw]
    values = zip(*(batch.column(name).to_pylist() for name in raw), strict=True) if raw else [()] * len(batch)
    rows = zip(batch.column("user").to_pylist(), values, histories, times, seen, strict=True)
    for user, features, history, time, met in rows:
        found = dict(zip(names, features, strict=True))
        yield user, StoredUser(found, tuple(history), tuple(time or ()), tuple(met))


def _ids(lists: pa.ListArray, items: pa.ChunkedArray) -> list[list[str]]:
    """Lists of item indices as lists of ids."""
    flat = items.take(lists.flatten()).to_pylist()
    ends, start, found = lists.value_lengths().fill_null(0).to_pylist(), 0, list[list[str]]()
    for length in ends:
        found.append(flat[start : start + length])
        start += length
    return found
