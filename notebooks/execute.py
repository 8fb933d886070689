"""Run notebooks where they leave nothing behind, and store them with what they printed.

python notebooks/execute.py            all of them
python notebooks/execute.py 2 4        those whose names begin so
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent
SECONDS = 900
"""A cell may take."""


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; it runs in `folder`, with the `recsys` that stands beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    terminal = {"PATH": path, "COLUMNS": "110", "TF_CPP_MIN_LOG_LEVEL": "3"}
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, **terminal})
    return notebook


def main(names: list[str]) -> None:
    """Execute and store the notebooks whose names begin with one of `names`, or all."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not path.stem.startswith(tuple(names)):
            continue
        with TemporaryDirectory() as folder:
            notebook = executed(nbformat.read(path, as_version=4), Path(folder))
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of day
        nbformat.write(notebook, path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
