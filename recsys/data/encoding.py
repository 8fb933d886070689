"""From canonical text to ids: the hashes that preparation and the exported graph share.

Canonical text is what a serving request would carry: text as it stands, integers in decimal, booleans as
`true`/`false`; null and `""` are missing. The hashes are TensorFlow's, since the graph has no others: TensorFlow is
imported by the first call, so a schema without hashes never loads it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Texts: TypeAlias = pa.Array | NDArray[Any]

FINGERPRINTS = 2**63 - 2
"""Number of fingerprints: 1 .. 2**63 - 2."""


def fingerprint(values: Texts) -> NDArray[np.int64]:
    """[N] texts -> [N] int64: 0 for missing, else 1 + `tf.strings.to_hash_bucket_fast(value, 2**63 - 2)`."""
    texts = _texts(values)
    return np.where(texts == b"", 0, 1 + _hash(texts, FINGERPRINTS))


def oov_bucket(values: Texts, oov_rows: int) -> NDArray[np.int64]:
    """[N] texts -> [N] int64 in [0, oov_rows): the OOV row of each text, as Keras' StringLookup chooses it."""
    if oov_rows == 1:
        return np.zeros(len(values), np.int64)
    return _hash(_texts(values), oov_rows)


def _texts(values: Texts) -> NDArray[np.object_]:
    """UTF-8 bytes, `b""` for missing."""
    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string(), from_pandas=True)
    return np.array(array.cast(pa.large_string()).cast(pa.large_binary()).fill_null(b"").to_pylist(), dtype=object)


def _hash(texts: NDArray[np.object_], buckets: int) -> NDArray[np.int64]:
    if len(texts) == 0:
        return np.empty(0, np.int64)
    from recsys._compat import tf

    return tf.strings.to_hash_bucket_fast(tf.constant(texts, tf.string), buckets).numpy()
