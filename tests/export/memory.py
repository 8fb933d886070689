"""A process that knows TensorFlow alone: `python -I memory.py FIRST NEXT ...` loads one SavedModel after the other.

It prints, as JSON, by how many bytes its resident memory has grown with each of them, the first left out: that one
brings in what TensorFlow needs to load any.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import tensorflow as tf


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(*folders: str) -> None:
    kept, sizes = [], []
    for folder in folders:
        kept.append(tf.saved_model.load(folder))
        kept[-1].signatures["serving_default"](tag=tf.constant(["a", "b"]))
        sizes.append(resident())
    print(json.dumps([after - before for before, after in pairwise(sizes)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
