"""What a public data set is: where it comes from, how its files may lie, and which tables are read from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """One way in which the files lie in a folder, with the DuckDB queries that read clean tables from them.

    In the queries `file('NAME')` is the path of a file in that folder.
    """

    folders: tuple[str, ...]
    """Where people keep it, relative to RECSYS_DATA."""
    files: tuple[str, ...]
    """The files it needs (or globs)."""
    events: str
    items: str | None = None
    users: str | None = None

    @property
    def queries(self) -> dict[str, str]:
        """The query of each table there is, by the table's name."""
        tables = {"events": self.events, "items": self.items, "users": self.users}
        return {name: query for name, query in tables.items() if query is not None}

    def paths(self, folder: Path) -> list[Path] | None:
        """The files in `folder`, sorted; None if one of them is missing."""
        found = [sorted(folder.glob(pattern)) for pattern in self.files]
        return [path for paths in found for path in paths] if all(found) else None


@dataclass(frozen=True)
class Download:
    """One file of the publisher's: a zip (its files are taken out of it) or a data file."""

    url: str
    md5_url: str | None = None
    """Where the publisher's own checksum stands. Without one, the first download's SHA-256 is pinned."""


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: never part of this project, always fetched by its user under the publisher's licence."""

    name: str
    description: str
    licence: str
    page: str
    """The publisher's page."""
    layouts: tuple[Layout, ...]
    """The first one whose files are there is taken."""
    downloads: tuple[Download, ...] = ()
    """Empty where a user has to get the files by hand from `page`."""

    def size(self, folder: Path) -> int:
        """Bytes of its files in `folder`."""
        paths = next((paths for layout in self.layouts if (paths := layout.paths(folder))), [])
        return sum(path.stat().st_size for path in paths)
