"""Ids of categorical values: by a vocabulary of the training part, or by fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.dataset import MISSING, CategoricalInfo, FingerprintInfo
from recsys.data.encoding import fingerprint, oov_bucket
from recsys.schema.config import Categorical, HashEncoding, MultiValued, VocabularyEncoding


@dataclass(frozen=True)
class Values:
    """The distinct values of a feature anywhere in the data (those in less than `least_count` training rows may be left
    out), and in how many training rows each one stands.
    """

    text: pa.StringArray
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Encoder:
    """The id of every value that stands anywhere in the data."""

    text: pa.StringArray
    """[V] distinct values: all, or those whose id is not `other`."""
    ids: NDArray[np.int32 | np.int64]
    """[V] their ids."""
    vocabulary: pa.Table | None
    """value, count: the vocabulary file; none for fingerprints."""
    info: CategoricalInfo | FingerprintInfo
    other: int = MISSING
    """The id of the values that `text` leaves out."""

    @cached_property
    def table(self) -> pa.Table:
        """value, id: for a join."""
        return pa.table({"value": self.text, "id": self.ids})

    def encode(self, values: pa.Array) -> pa.Array:
        """[N] texts -> [N] ids, 0 for null."""
        ids = pa.array(self.ids)
        missing, other = (pa.scalar(each, ids.type) for each in (MISSING, self.other))
        found = pc.take(ids, pc.index_in(values, value_set=self.text, skip_nulls=True))
        return pc.coalesce(found, pc.if_else(pc.is_valid(values), other, missing))

    def encode_lists(self, lists: pa.ListArray) -> pa.ListArray:
        """[N] lists of texts -> [N] lists of ids; a null list becomes the empty one."""
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        return pa.ListArray.from_arrays(offsets(lengths), self.encode(pc.list_flatten(lists)))


def offsets(lengths: NDArray[np.integer]) -> pa.Array:
    """Arrow list offsets from list lengths."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def make_encoder(feature: Categorical | MultiValued, values: Values) -> Encoder:
    """Decide the ids: fingerprints, or OOV ids and then the vocabulary by falling count, ties in code point order."""
    max_length = feature.max_length if isinstance(feature, MultiValued) else None
    if isinstance(feature.encoding, HashEncoding):
        hashed = FingerprintInfo(role=feature.role, input=feature.input, max_length=max_length)
        return Encoder(values.text, fingerprint(values.text), None, hashed)
    encoding = feature.encoding
    oov_rows = encoding.oov_rows
    order = pc.sort_indices(
        pa.table({"value": values.text, "count": values.count}),
        sort_keys=[("count", "descending"), ("value", "ascending")],
    ).to_numpy()
    members = order[: int((values.count >= encoding.min_count).sum())]
    vocabulary = pa.table({"value": values.text.take(pa.array(members)), "count": values.count[members]})
    info = CategoricalInfo(
        role=feature.role,
        input=feature.input,
        rows=1 + oov_rows + len(members),
        oov_rows=oov_rows,
        max_length=max_length,
    )
    own = (1 + oov_rows + np.arange(len(members))).astype(np.int32)
    if least_count(feature):
        return Encoder(vocabulary["value"].combine_chunks(), own, vocabulary, info, other=1)
    ids = (1 + oov_bucket(values.text, oov_rows)).astype(np.int32)
    ids[members] = own
    return Encoder(values.text, ids, vocabulary, info)


def least_count(feature: Categorical | MultiValued) -> int:
    """The training rows below which a value's text does not matter, because all such values share one id; else 0."""
    encoding = feature.encoding
    return encoding.min_count if isinstance(encoding, VocabularyEncoding) and encoding.oov_rows == 1 else 0


def count_values(values: pa.Array, rows: NDArray[np.int64]) -> Values:
    """Distinct values of a users' or items' feature ([N] texts or lists of texts).

    A value counts `rows[n]` training rows for every n that holds it, however often.
    """
    if pa.types.is_list(values.type):
        owners, flat = pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values)
    else:
        owners = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
        flat = values.drop_null()
    distinct = pc.dictionary_encode(flat)
    holdings = np.unique(np.stack([owners, distinct.indices.to_numpy()]), axis=1)
    count = np.bincount(holdings[1], weights=rows[holdings[0]], minlength=len(distinct.dictionary))
    return Values(distinct.dictionary, count.astype(np.int64))
