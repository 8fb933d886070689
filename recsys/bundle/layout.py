"""Where what stands in a bundle, and nowhere else is it said.

SavedModels stand as TensorFlow Serving looks for the versions of a model: `query_tower/3/saved_model.pb` in bundle 3,
so that a client asks for the same number whichever server it talks to.
"""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"
QUERY_TOWER, ITEM_TOWER, RETRIEVER, RANKER = "query_tower", "item_tower", "retriever", "ranker"
GRAPHS = (QUERY_TOWER, ITEM_TOWER, RANKER, RETRIEVER)
"""Folders of SavedModels, of which a bundle has some."""
SAVED_MODEL = "saved_model.pb"
COMPLEMENTS, COMPLEMENT_INPUTS, COMPLEMENT_INDEX = "complements", "complements/vectors.npy", "complements/index"
INDEX, VECTORS = "index", "index/vectors.npy"
ITEMS, USERS, QUERIES = "items.parquet", "users.parquet", "queries.parquet"
GOLDEN = "golden.json"
_UNNUMBERED = "unnumbered"
"""What a SavedModel's version is called until its bundle has a number."""


def graph_folder(graph: str, version: int | None = None) -> str:
    """Where the SavedModel of `GRAPHS` stands in the bundle of this version; None for one that is being written."""
    return f"{graph}/{_UNNUMBERED if version is None else version}"


def number_graphs(bundle: Path, version: int) -> None:
    """Gives the SavedModels of a bundle that is being written its version, whatever it was to be before."""
    for graph in GRAPHS:
        if (bundle / graph).is_dir():
            (folder,) = (bundle / graph).iterdir()
            folder.rename(bundle / graph_folder(graph, version))
