"""SavedModels stand where TensorFlow Serving's file-system poller looks for them."""

from __future__ import annotations

from pathlib import Path

from recsys.bundle import Bundle
from tests.tiny_bundle import write


def versions(folder: Path) -> list[int]:
    """As the poller lists a model's versions: children of `base_path` whose names are numbers; each holds a model."""
    return [int(child.name) for child in folder.iterdir() if child.name.isdecimal() and is_model(child)]


def is_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file() and (folder / "variables" / "variables.index").is_file()


def test_each_model_has_the_version_of_its_bundle_and_no_other(tmp_path: Path) -> None:
    for number in (1, 2):
        bundle = Bundle.load(write(tmp_path / "bundle"))
        assert bundle.manifest.version == number
        for graph in ("query_tower", "item_tower"):
            assert versions(bundle.folder / graph) == [number]
            assert [child.name for child in (bundle.folder / graph).iterdir()] == [str(number)]
