"""A process that knows TensorFlow and ScaNN alone: `python -I fresh.py BUNDLE REQUESTS.npz RESULTS.npz`.

The requests are cut into batches of 1,000, 7 and 1 for the query tower or the ranker, of 1,000 for the retriever.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

FOREIGN = {"recsys", "tf_keras", "tensorflow_recommenders", "serving"}


def tensors(arrays: dict, rows: slice) -> dict:
    return {
        name: tf.constant(a[rows].astype(object), tf.string) if a.dtype.kind == "U" else tf.constant(a[rows])
        for name, a in arrays.items()
    }


def in_batches(folder: str, output: str, arrays: dict) -> dict:
    """One output of a SavedModel, by the size of the batches."""
    model = tf.saved_model.load(folder)
    signature = model.signatures["serving_default"]
    count = len(arrays["member"])
    found = {}
    for size in (1_000, 7, 1):
        parts = [signature(**tensors(arrays, slice(at, at + size)))[output].numpy() for at in range(0, count, size)]
        found[f"{output}_{size}"] = np.concatenate(parts)
    return found


def newest(folder: str) -> str:
    """As TensorFlow Serving's poller finds a model: the highest numbered child."""
    versions = [int(child.name) for child in Path(folder).iterdir() if child.name.isdecimal()]
    return f"{folder}/{max(versions)}"


def retrieve(bundle: str, arrays: dict) -> dict:
    found = in_batches(newest(f"{bundle}/query_tower"), "embedding", arrays)
    items = tf.saved_model.load(newest(f"{bundle}/item_tower")).signatures["serving_default"]
    found["item_inputs"] = np.array(sorted(items.structured_input_signature[1]))
    assert "scann" not in sys.modules, "the towers need TensorFlow alone"

    import scann  # noqa: F401

    retriever = tf.saved_model.load(newest(f"{bundle}/retriever"))
    assert len(retriever.signatures["catalogue"]()["version"].numpy()) == 16
    answer = retriever.signatures["serving_default"](**tensors(arrays, slice(0, 1_000)))
    return found | {
        "item_index": answer["item_index"].numpy(),
        "score": answer["score"].numpy(),
        "item": np.array([[text.decode() for text in row] for row in answer["item"].numpy()]),
    }


def rank(bundle: str, arrays: dict) -> dict:
    folder = newest(f"{bundle}/ranker")
    outputs = tf.saved_model.load(folder).signatures["serving_default"].structured_outputs
    return {name: found for output in outputs for name, found in in_batches(folder, output, arrays).items()}


def main(bundle: str, requests: str, results: str) -> None:
    arrays = dict(np.load(requests))
    found = (rank if Path(bundle, "ranker").is_dir() else retrieve)(bundle, arrays)
    assert not FOREIGN & set(sys.modules), sorted(FOREIGN & set(sys.modules))
    np.savez(results, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
