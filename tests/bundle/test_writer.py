"""A bundle appears whole, under the next number, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.bundle import Bundle, BundleWriter
from recsys.bundle.manifest import CategoricalField, Manifest, required
from tests.tiny_bundle import REQUEST, description

REQUIRED = required("two_tower", 1)


def write(bundles: Path, content: str = "content", names: Sequence[str] = REQUIRED) -> Path:
    with BundleWriter(bundles) as writer:
        for name in names:
            writer.path(*name.split("/")).write_text(content, encoding="utf-8")
        writer.describe(description())
    return writer.folder


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle", "été")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))
    content = "été".encode()
    assert set(manifest.files) == set(REQUIRED)
    assert {f.bytes for f in manifest.files.values()} == {len(content)}
    assert {f.sha256 for f in manifest.files.values()} == {hashlib.sha256(content).hexdigest()}
    assert (manifest.format, manifest.version, manifest.name) == (2, 1, "tiny")
    assert manifest.versions.tensorflow.startswith("2.")
    assert manifest.created.tzinfo is not None
    assert manifest.model_dump(include=set(description().model_dump())) == description().model_dump()


def test_numbers_rise_past_gaps_and_other_names(tmp_path: Path) -> None:
    bundles = tmp_path / "bundle"
    assert write(bundles).name == "1"
    (bundles / "7").mkdir()
    (bundles / "9.old").mkdir()
    (bundles / "12").write_text("a file is no bundle", encoding="utf-8")
    folder = write(bundles)
    assert folder == bundles / "8"
    assert (folder / "query_tower" / "8" / "saved_model.pb").is_file()
    assert json.loads((folder / "manifest.json").read_bytes())["version"] == 8


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    bundles = tmp_path / "bundle"
    with BundleWriter(bundles) as slow:
        for name in REQUIRED:
            slow.path(name).write_text("slow", encoding="utf-8")
        slow.describe(description())
        fast = write(bundles, "fast")
    assert (fast.name, slow.folder.name) == ("1", "2")
    assert (fast / "items.parquet").read_text(encoding="utf-8") == "fast"
    assert set(Manifest.model_validate_json((slow.folder / "manifest.json").read_bytes()).files) == set(
        required("two_tower", 2)
    )


def test_a_number_taken_at_the_last_moment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer comes between the look at the folder and the move."""
    import recsys.bundle.writer as module

    bundles, looks = tmp_path / "bundle", []

    def numbered_too_early(folder: Path) -> list[int]:
        looks.append(folder)
        return [] if len(looks) == 1 else [1]

    (bundles / "1").mkdir(parents=True)
    (bundles / "1" / "manifest.json").write_text("theirs", encoding="utf-8")
    monkeypatch.setattr(module, "numbered", numbered_too_early)
    folder = write(bundles)
    assert folder.name == "2"
    Bundle.load(folder)
    assert (bundles / "1" / "manifest.json").read_text(encoding="utf-8") == "theirs"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path)

    def export() -> None:
        with writer:
            writer.path("index", "vectors.npy").write_text("half", encoding="utf-8")
            writer.describe(description())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="not published"):
        _ = writer.folder


def test_without_a_description_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="describe"), BundleWriter(tmp_path) as writer:
        writer.path("items.parquet").write_text("x", encoding="utf-8")
    assert list(tmp_path.iterdir()) == []


def test_without_a_required_file_nothing_is_published(tmp_path: Path) -> None:
    assert REQUIRED[-1] == "users.parquet"
    with pytest.raises(ValidationError, match=r"users\.parquet"):
        write(tmp_path, names=REQUIRED[:-1])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    from recsys.bundle.active import numbered

    with BundleWriter(tmp_path) as writer:
        writer.path("items.parquet").write_text("x", encoding="utf-8")
        assert numbered(tmp_path) == []
        for name in REQUIRED:
            writer.path(name).write_text("x", encoding="utf-8")
        writer.describe(description())
    assert numbered(tmp_path) == [1]
    assert {p.name for p in tmp_path.iterdir()} == {"1"}


def test_a_sequence_with_ages_needs_a_unit_of_time_and_a_name_of_its_own() -> None:
    with pytest.raises(ValidationError, match=r"watched\.age needs `timestamp_unit`"):
        description(timestamp_unit=None)
    with pytest.raises(ValidationError, match="watched_age share a name"):
        description(request=REQUEST | {"watched_age": CategoricalField(role="user")})
