"""What a table of a million rows takes: in an exported file, and in the memory of a process that serves it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recsys._compat import tf
from recsys.data.dataset import FeatureInfo, FingerprintInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.export import Encoder, TowerModule
from recsys.models.config import TowerConfig
from recsys.models.two_tower import Tower

ROWS, DIM = 1_000_000, 32
FEATURES: dict[str, FeatureInfo] = {"tag": FingerprintInfo(role="item")}
WIDTHS = {"float32": 4 * DIM, "float16": 2 * DIM, "bfloat16": 2 * DIM, "int8": DIM + 2}
"""Bytes of a row."""


def export(folder: Path, rows: int, precision: str, when: str = "served_precision") -> Path:
    """A tower that is one table, and needs no vocabulary."""
    table = {"method": "multiplexed", "rows": rows, "dim": DIM, when: precision}
    config = EmbeddingsConfig.model_validate({"tables": {"t": table}, "features": {"tag": {"table": "t"}}})
    embeddings = EmbeddingCollection(config, FEATURES)
    tower = Tower(TowerConfig(), False, embeddings, 0, tf.Variable(0, dtype=tf.int64), "tower")
    tower({"tag": tf.constant([1], tf.int64)})
    TowerModule(tower, Encoder(folder, FEATURES, ["tag"]), embeddings.serve()).save(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("million")
    return {precision: export(folder / precision, ROWS, precision) for precision in WIDTHS}


def on_disk(folder: Path) -> int:
    """Bytes of the variables: TensorFlow does not compress them."""
    return sum(path.stat().st_size for path in (folder / "variables").iterdir())


@pytest.mark.parametrize("precision", WIDTHS)
def test_a_file_is_as_large_as_its_rows(folders: dict[str, Path], precision: str) -> None:
    found, rows = on_disk(folders[precision]), ROWS * WIDTHS[precision]
    assert rows <= found < rows + 10_000
    assert sum(path.stat().st_size for path in folders[precision].rglob("*") if path.is_file()) < rows + 100_000


def test_int8_takes_at_most_27_percent_of_float32(folders: dict[str, Path]) -> None:
    assert on_disk(folders["int8"]) <= 0.27 * on_disk(folders["float32"])


def test_rows_trained_at_int8_are_exported_without_their_float32_scales(tmp_path: Path) -> None:
    folder = export(tmp_path / "trained", 10_000, "int8", "precision")
    assert 10_000 * (DIM + 2) <= on_disk(folder) < 10_000 * (DIM + 2) + 10_000


def test_a_process_that_loads_a_table_grows_by_its_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    """Within 10% and 4 MiB: a loaded row takes what it takes in the file, and no copy stays."""
    first = export(tmp_path / "first", 10, "int8")
    order = ["int8", "float16", "bfloat16", "float32"]
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, "-I", script, first, *(folders[precision] for precision in order)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3_000:]
    grown = dict(zip(order, json.loads(done.stdout), strict=True))
    for precision, growth in grown.items():
        rows = ROWS * WIDTHS[precision]
        assert 0.9 * rows < growth < 1.1 * rows + 2**22, (precision, grown)
