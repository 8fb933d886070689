"""What a bundle's models take: on disk, and in the memory of a fresh process that knows TensorFlow alone.

    python benchmarks/loaded_memory.py BUNDLE     prints bytes on disk and of resident memory, as JSON

The process first makes and loads a model of one number, which brings in what TensorFlow needs to load any, and then the
bundle's; each is asked once. Resident memory is what it has grown by, when freed memory has gone back to the system:
tables, dense weights, vocabularies, and the graph, of some megabytes. On disk are the files of the variables, which
TensorFlow does not compress.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS = ("ranker", "query_tower", "item_tower")
"""SavedModels of a bundle that hold tables."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a bundle."""

    disk: int
    """Of the files of the models' variables."""
    resident: int
    """By which a process grows that loads the models."""


def footprint(bundle: Path) -> Footprint:
    """Of a bundle, in a process of its own.

    Raises:
        RuntimeError: a model cannot be loaded; with what the process said.
    """
    done = subprocess.run([sys.executable, "-I", __file__, bundle.resolve()], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2_000:])
    return Footprint(**json.loads(done.stdout))


def _measured(bundle: Path) -> Footprint:
    import tensorflow as tf

    folders = [folder for name in MODELS for folder in (bundle / name).glob("*") if folder.name.isdecimal()]
    if not folders:
        raise FileNotFoundError(f"{bundle} holds none of {', '.join(MODELS)}")
    with tempfile.TemporaryDirectory() as temporary:
        module = tf.Module()
        module.number = tf.Variable(1.0)
        function = tf.function(lambda text: {"n": tf.strings.length(text)}, [tf.TensorSpec([None], tf.string, "text")])
        tf.saved_model.save(module, temporary, {"serving_default": function})
        loaded = [_asked(tf, Path(temporary))]
    before = _resident()
    loaded += [_asked(tf, folder) for folder in folders]
    after = _resident()
    disk = sum(path.stat().st_size for folder in folders for path in (folder / "variables").iterdir())
    return Footprint(disk, after - before)


def _asked(tf: Any, folder: Path) -> Any:
    """A loaded model, once it has answered for one empty row."""
    model = tf.saved_model.load(str(folder))
    signature = model.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    signature(**{name: tf.zeros([size or 1 for size in spec.shape], spec.dtype) for name, spec in specs.items()})
    return model


def _resident() -> int:
    """When what was freed has gone back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    print(json.dumps(vars(_measured(Path(sys.argv[1])))))
