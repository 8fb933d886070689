"""A bundle is verified before anything in it is opened; every refusal names the file and the cure."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.bundle import Bundle
from recsys.bundle.manifest import Versions
from recsys.errors import BundleError, Problem
from tests.tiny_bundle import write

FILES = [
    "index/vectors.npy",
    "item_tower/1/fingerprint.pb",
    "item_tower/1/saved_model.pb",
    "item_tower/1/variables/variables.data-00000-of-00001",
    "item_tower/1/variables/variables.index",
    "items.parquet",
    "query_tower/1/fingerprint.pb",
    "query_tower/1/saved_model.pb",
    "query_tower/1/variables/variables.data-00000-of-00001",
    "query_tower/1/variables/variables.index",
    "users.parquet",
]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle" / "1")


def refused(path: Path, **options: bool) -> tuple[Problem, ...]:
    with pytest.raises(BundleError) as caught:
        Bundle.load(path, **options)
    assert all(p.cure for p in caught.value.problems)
    return caught.value.problems


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_the_list_of_files_above_is_complete(tiny_bundle: Path) -> None:
    assert sorted(Bundle.load(tiny_bundle).manifest.files) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found(bundle: Path, name: str) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (problem,) = refused(bundle)
    assert problem.place == str(path)
    assert "SHA-256" in problem.found
    assert "export the run again" in problem.cure
    Bundle.load(bundle, verify=False)  # digests alone are left out


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_cut_or_missing_file_is_found_without_digests_too(bundle: Path, name: str, verify: bool) -> None:
    path = bundle / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    (problem,) = refused(bundle, verify=verify)
    assert (problem.place, problem.found, problem.expected) == (str(path), f"has {size - 1} bytes", str(size))
    path.unlink()
    (problem,) = refused(bundle, verify=verify)
    assert (problem.place, problem.found) == (str(path), "is missing")


@pytest.mark.parametrize(
    "name",
    ["surplus.pkl", "index/more/deep.npy", ".hidden", "query_tower/manifest.json", "item_tower/2/saved_model.pb"],
)
def test_an_extra_file_is_found(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"x")
    (problem,) = refused(bundle)
    assert problem.place == str(bundle / name)
    assert "not listed" in problem.found
    assert "remove it" in problem.cure


def test_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "items.parquet").rename(tmp_path / "elsewhere")
    (bundle / "items.parquet").symlink_to(tmp_path / "elsewhere")
    (bundle / "index").rename(tmp_path / "elsewhere_too")
    (bundle / "index").symlink_to(tmp_path / "elsewhere_too")
    assert [(Path(p.place).name, p.found) for p in refused(bundle)] == [
        ("index", "is not listed in the manifest"),
        ("vectors.npy", "is missing"),
        ("items.parquet", "is a link"),
    ]


def test_all_damage_is_told_at_once(bundle: Path) -> None:
    (bundle / "users.parquet").unlink()
    (bundle / "items.parquet").write_bytes(b"")
    (bundle / "new").write_bytes(b"")
    assert [Path(p.place).name for p in refused(bundle)] == ["new", "items.parquet", "users.parquet"]


def test_nothing_is_opened_before_it_is_verified(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file is refused by `load`, although every other part is sound and could have been opened first."""
    opened: list[str] = []
    for name in ("items", "users", "index", "query_tower", "item_tower"):
        monkeypatch.setattr(Bundle, name, property(lambda _, name=name: opened.append(name)))
    (bundle / "users.parquet").write_bytes(b"not Parquet")
    refused(bundle)
    assert opened == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "format None"),
        (b"{}", "format None"),
        (b'{"format": 1}', "format 1"),
        (b'{"format": 3}', "format 3"),
        (b'{"format": "1"}', "format '1'"),
        (b'{"format": true}', "format True"),
    ],
)
def test_a_manifest_that_is_none(bundle: Path, content: bytes, found: str) -> None:
    (bundle / "manifest.json").write_bytes(content)
    (problem,) = refused(bundle)
    assert problem.place == str(bundle / "manifest.json")
    assert found in problem.found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda m: m.pop("request"), "request"),
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.update(catalogue_size="6"), "catalogue_size"),
        (lambda m: m["request"]["genre"].update(kind="pickle"), "request.genre"),
        (lambda m: m["files"]["items.parquet"].update(sha256="0" * 63), "files.items.parquet.sha256"),
        (lambda m: m["files"]["items.parquet"].update(bytes=-1), "files.items.parquet.bytes"),
        (lambda m: m["files"].pop("users.parquet"), "files"),
    ],
)
def test_a_manifest_that_does_not_say_what_it_must(bundle: Path, change: Callable[[Any], object], place: str) -> None:
    change_manifest(bundle, change)
    (problem,) = refused(bundle)
    assert problem.place == f"{bundle / 'manifest.json'}: {place}"


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "index/../../secret", "index\\secret", "./secret", "a//b", "index/", "", "a\0b"],
)
def test_names_that_lead_out_of_the_bundle(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_bytes(b"")
    empty = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "bytes": 0}
    change_manifest(bundle, lambda m: m["files"].update({name: empty}))
    (problem,) = refused(bundle)
    assert problem.place == f"{bundle / 'manifest.json'}: files"
    assert "no plain path inside the bundle" in problem.found


@pytest.mark.parametrize(
    ("version", "fits"), [("2.20.0", True), ("2.20.9", True), ("2.2.0", False), ("2.21.0", False), ("3.20.0", False)]
)
def test_tensorflow_must_have_the_same_minor_version(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    here = Versions(recsys="9", tensorflow="2.20.1", numpy="9", scann=None)
    monkeypatch.setattr(Versions, "installed", lambda: here)
    change_manifest(bundle, lambda m: m["versions"].update(tensorflow=version))
    if fits:
        Bundle.load(bundle)
        return
    (problem,) = refused(bundle)
    assert problem.place == f"{bundle / 'manifest.json'}: versions.tensorflow"
    assert "TensorFlow 2.20.1 is installed" in problem.found
    assert f"pip install 'tensorflow=={version[:-2]}.*'" in problem.cure


def test_scann_must_be_the_same_if_it_is_the_index(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["versions"].update(scann="0.0.1"))
    Bundle.load(bundle)
    change_manifest(bundle, lambda m: m["index"].update(kind="scann"))
    (problem,) = refused(bundle)
    assert problem.place.endswith("versions.scann")
    assert "pip install 'scann==0.0.1'" in problem.cure


def test_the_highest_number_of_a_folder_or_a_run(tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    for number in (2, 10):
        shutil.copytree(tiny_bundle, run / "bundle" / str(number))
    (run / "bundle" / ".writing-half").mkdir()
    (run / "bundle" / "99.tmp").mkdir()
    for path in (run, run / "bundle", run / "bundle" / "10", str(run)):
        assert Bundle.load(path).folder == run / "bundle" / "10"
    assert Bundle.load(run / "bundle" / "2").folder == run / "bundle" / "2"


def test_a_half_written_bundle_is_refused(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    (problem,) = refused(bundle.parent)
    assert (problem.place, problem.found) == (str(bundle / "manifest.json"), "is missing")
    half = bundle.rename(bundle.parent / ".writing-123")
    for path in (half, half.parent):
        (problem,) = refused(path)
        assert problem.place == str(path)
        assert "recsys export RUN" in problem.cure


def test_no_bundle_at_all(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path / "nowhere")
    assert (problem.place, problem.found) == (str(tmp_path / "nowhere"), "no such folder")
    (problem,) = refused(tmp_path)
    assert "holds no manifest.json" in problem.found


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(bundle: Path) -> None:
    (bundle / "items.parquet").chmod(0)
    (problem,) = refused(bundle)
    assert problem.place == str(bundle / "items.parquet")


def test_a_moved_bundle_is_still_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_bundle, tmp_path / "elsewhere" / "été 日本")
    assert Bundle.load(moved).embed([{"genre": "comedy"}]).tolist() == [[2, 0, 0, -1]]


def test_a_tower_with_other_inputs_than_the_manifest_says(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["request"].pop("price"))
    with pytest.raises(BundleError, match="takes genre, price, tags") as caught:
        _ = Bundle.load(bundle).query_tower
    assert caught.value.problems[0].place == str(bundle / "query_tower" / "1")


def test_a_catalogue_of_another_size(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m.update(catalogue_size=7))
    with pytest.raises(BundleError, match="6 rows; expected 7") as caught:
        _ = Bundle.load(bundle).items
    assert caught.value.problems[0].place == str(bundle / "items.parquet")


def test_write_uses_the_next_number(tiny_bundle: Path, tmp_path: Path) -> None:
    assert [write(tmp_path).name, write(tmp_path).name] == ["1", "2"]
