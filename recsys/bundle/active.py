"""Which bundle of a folder is served: the highest number, or the one that the file `active` names."""

from __future__ import annotations

from pathlib import Path

from recsys.bundle.layout import MANIFEST
from recsys.errors import BundleError
from recsys.files import write_text

ACTIVE = "active"
"""A file beside the numbered bundles that holds one number."""


def numbered(folder: Path) -> list[int]:
    """The numbers of the bundles in `folder` (other names, such as a writer's hidden folder, are none)."""
    if not folder.is_dir():
        return []
    return [int(p.name) for p in folder.iterdir() if p.name.isascii() and p.name.isdecimal() and p.is_dir()]


def active_version(folder: Path) -> int | None:
    """The number of the bundle to serve; None where there are no bundles.

    Raises:
        BundleError: `active` does not name a bundle that is there.
    """
    numbers = numbered(folder)
    try:
        text = (folder / ACTIVE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return max(numbers, default=None)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(folder, f"cannot be read ({error})", numbers) from error
    if text.isascii() and text.isdecimal() and int(text) in numbers:
        return int(text)
    raise _unreadable(folder, f"names {text[:40]!r}", numbers)


def activate(path: Path, version: int) -> int | None:
    """Have this bundle of a folder served from now on, and say which one was before.

    Raises:
        BundleError: the folder has no such bundle.
    """
    folder = folder_of_bundles(path)
    if version not in numbered(folder):
        raise BundleError(str(folder), f"has no bundle {version}", _listed(numbered(folder)), "name one of them")
    before = _before(folder)
    write_text(folder / ACTIVE, f"{version}\n")
    return before


def rollback(path: Path) -> tuple[int, int]:
    """Have the bundle before the active one served from now on: their numbers, the active one's first.

    Raises:
        BundleError: there is none before it.
    """
    folder = folder_of_bundles(path)
    before = active_version(folder)
    assert before is not None  # or it were no folder of bundles
    earlier = [number for number in numbered(folder) if number < before]
    if not earlier:
        raise BundleError(str(folder), f"has no bundle before {before}", "an earlier one", "export the run again")
    activate(folder, max(earlier))
    return before, max(earlier)


def folder_of_bundles(path: Path) -> Path:
    """The folder of numbered bundles that `path` means: itself, or that of a run directory.

    Raises:
        BundleError: there is none.
    """
    for folder in (path, path / "bundle"):
        if not (folder / MANIFEST).is_file() and numbered(folder):
            return folder
    found = "is one bundle" if (path / MANIFEST).is_file() else "holds no numbered bundle"
    raise BundleError(str(path), found, "a folder of bundles, or a run directory", "name the folder that holds them")


def _before(folder: Path) -> int | None:
    try:
        return active_version(folder)
    except BundleError:  # what is about to be mended
        return None


def _unreadable(folder: Path, found: str, numbers: list[int]) -> BundleError:
    return BundleError(str(folder / ACTIVE), found, _listed(numbers), f"recsys activate {folder} N")


def _listed(numbers: list[int]) -> str:
    return f"one of {', '.join(map(str, sorted(numbers)))}" if numbers else "the number of a bundle"
