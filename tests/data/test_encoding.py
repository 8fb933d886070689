from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys.data.encoding import fingerprint, oov_bucket


def test_fingerprint_is_tensorflows_hash_plus_one():
    from recsys._compat import tf

    values = ["a", "é", "😀", "123"]
    expected = 1 + tf.strings.to_hash_bucket_fast(values, 2**63 - 2).numpy()
    assert fingerprint(pa.array(values)).tolist() == expected.tolist()
    assert fingerprint(np.array(values)).tolist() == expected.tolist()


def test_missing_is_zero_and_nothing_else():
    assert fingerprint(pa.array([None, "", "0", " "]))[:2].tolist() == [0, 0]
    assert (fingerprint(pa.array([None, "", "0", " "]))[2:] > 0).all()
    assert fingerprint(pa.array([], pa.string())).tolist() == []


def test_oov_buckets_are_those_of_string_lookup():
    from recsys._compat import keras

    values = [f"unknown {n}" for n in range(50)]
    lookup = keras.layers.StringLookup(vocabulary=["known"], mask_token="", num_oov_indices=7)
    assert (1 + oov_bucket(np.array(values), 7)).tolist() == lookup(np.array(values)).numpy().tolist()
    assert set(oov_bucket(np.array(values), 1)) == {0}
