"""An index's folder: written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from recsys import files
from recsys.errors import BundleError
from recsys.retrieval.index import VECTORS, Vectors


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place only when all is written.

    Raises:
        BundleError: `folder` holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(str(folder), "there is something here already", "a new folder", "remove it or name another")
    with files.new_folder(folder) as draft:
        yield draft


def load_vectors(folder: Path) -> Vectors:
    """The vectors of an index's folder, mapped into memory.

    Raises:
        BundleError: they are missing or no float32 matrix.
    """
    path = folder / VECTORS
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(str(path), f"cannot be read ({error})", "the index's vectors", "export it again") from error
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise BundleError(
            str(path), f"holds {vectors.dtype} {vectors.shape}", "float32 [items, width]", "export it again"
        )
    return np.asarray(vectors)
