"""A process of its own that reads what another has written: python fresh.py FOLDER.

First the SavedModels, by TensorFlow alone; then checkpoints, into layers made with another seed. `FOLDER/fresh.npz`
holds what they give for the batch in `FOLDER/batch.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(folder: Path) -> None:
    batch = {name: tf.constant(value) for name, value in np.load(folder / "batch.npz").items()}
    found = {}
    for path in sorted((folder / "served").iterdir()):
        loaded = tf.saved_model.load(str(path))
        result = loaded.signatures["serving_default"](**{name.replace(".", "_"): v for name, v in batch.items()})
        found |= {f"{path.name}/served/{name}": value.numpy() for name, value in result.items()}
    assert "recsys" not in sys.modules

    from tests.embeddings.methods import CASES, collection_of, outputs

    for name, case in CASES.items():
        collection = collection_of(case, folder, seed=99)
        before = outputs(collection, batch)
        checkpoint = tf.train.Checkpoint(embeddings=collection)
        checkpoint.read(str(folder / "checkpoints" / name)).assert_existing_objects_matched().assert_consumed()
        after = outputs(collection, batch)
        found |= {f"{name}/before/{key}": value.numpy() for key, value in before.items()}
        found |= {f"{name}/restored/{key}": value.numpy() for key, value in after.items()}
    np.savez(folder / "fresh.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
