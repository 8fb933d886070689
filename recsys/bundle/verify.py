"""Whether a folder is the bundle that its manifest describes, told before anything in it is opened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from recsys.bundle.active import active_version
from recsys.bundle.layout import MANIFEST
from recsys.bundle.manifest import FORMAT, Manifest, Versions
from recsys.errors import BundleError, Problem

EXPORT_AGAIN = "export the run again (recsys export RUN), or copy the bundle anew"


def find(path: Path | str) -> Path:
    """The bundle that `path` means: a bundle, a folder of numbered bundles (the active one), or a run directory.

    Raises:
        BundleError: there is none, or the active one is not there.
    """
    path = Path(path)
    for folder in (path, path / "bundle"):
        if (folder / MANIFEST).is_file():
            return folder
        version = active_version(folder)
        if version is not None:
            return folder / str(version)
    found = f"holds no {MANIFEST} and no numbered bundle" if path.is_dir() else "no such folder"
    raise BundleError(str(path), found, "a bundle (BUNDLE/N) or a run directory", "write one by recsys export RUN")


def read_manifest(folder: Path) -> Manifest:
    """The manifest, checked against its own format.

    Raises:
        BundleError: it is missing, no JSON, of another format, or does not say what it must.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(str(path), "is missing", "a whole bundle", EXPORT_AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(str(path), f"cannot be read as JSON ({error})", "", EXPORT_AGAIN) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise BundleError(
            str(path), f"format {found!r}", f"format {FORMAT}", "export the run again with the installed recsys"
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleError(
            Problem(f"{path}: {'.'.join(map(str, e['loc']))}", e["msg"], cure=EXPORT_AGAIN) for e in error.errors()
        ) from error


def check_versions(folder: Path, manifest: Manifest) -> None:
    """Refuse a bundle whose SavedModels or searcher were written by versions that this environment cannot run.

    Raises:
        BundleError: another TensorFlow minor version or, for a ScaNN index, another ScaNN.
    """
    here, there = Versions.installed(), manifest.versions
    problems = []
    if _minor(here.tensorflow) != _minor(there.tensorflow):
        problems.append(_version_problem(folder, "TensorFlow", here.tensorflow, _minor(there.tensorflow) + ".*"))
    if manifest.index is not None and manifest.index.kind == "scann" and here.scann != there.scann:
        problems.append(_version_problem(folder, "ScaNN", here.scann, there.scann))
    if problems:
        raise BundleError(problems)


def _version_problem(folder: Path, name: str, found: str | None, needed: str | None) -> Problem:
    return Problem(
        f"{folder / MANIFEST}: versions.{name.lower()}",
        f"{name} {found or 'none'} is installed",
        f"{name} {needed}, which wrote the bundle",
        f"pip install '{name.lower()}=={needed}', or export the run again here",
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def check_files(folder: Path, manifest: Manifest, *, digests: bool = True) -> None:
    """Compare the folder with the manifest's list: presence, extra files, sizes and (if wanted) SHA-256.

    Raises:
        BundleError: with one problem for each file that is not as listed.
    """
    present = files_in(folder)
    present.pop(MANIFEST, None)
    problems = [
        Problem(str(folder / name), "is not listed in the manifest", cure=f"remove it, or {EXPORT_AGAIN}")
        for name in sorted(present.keys() - manifest.files.keys())
    ]
    for name, facts in sorted(manifest.files.items()):
        place = str(folder / name)
        path = present.get(name)
        if path is None:
            problems.append(Problem(place, "is missing", "the file that the manifest lists", EXPORT_AGAIN))
        elif path.is_symlink() or not path.is_file():
            problems.append(Problem(place, "is a link", "a plain file", "copy the bundle with its links followed"))
        elif (size := path.stat().st_size) != facts.bytes:
            problems.append(Problem(place, f"has {size} bytes", f"{facts.bytes}", EXPORT_AGAIN))
        elif digests and (digest := sha256(path)) != facts.sha256:
            problems.append(Problem(place, f"has SHA-256 {digest}", facts.sha256, EXPORT_AGAIN))
    if problems:
        raise BundleError(problems)


def files_in(folder: Path) -> dict[str, Path]:
    """Everything below `folder` that is no folder (links are not followed), by its path in POSIX form."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def sha256(path: Path) -> str:
    """The file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
