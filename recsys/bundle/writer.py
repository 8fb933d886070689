"""Writing a bundle: whole, or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from recsys.bundle.active import numbered
from recsys.bundle.layout import MANIFEST, graph_folder, number_graphs
from recsys.bundle.manifest import Description, FileFacts, Manifest, Versions
from recsys.bundle.verify import files_in, sha256
from recsys.files import draft_folder


class BundleWriter:
    """Collects a bundle's files in a hidden folder beside the target; leaving the block without an error publishes it.

    The target is `bundles/N`, N the next free number. After an error nothing is left::

        with BundleWriter(run / "bundle") as writer:
            tf.saved_model.save(tower, writer.graph(QUERY_TOWER))
            ...
            writer.describe(Description(name="ml-1m", ...))
        writer.folder  # run/bundle/1

    Raises:
        RuntimeError: the block ends without `describe`.
        ValueError: (pydantic's) a file of `manifest.required` was not written.
    """

    def __init__(self, bundles: Path | str) -> None:
        self._bundles = Path(bundles)
        self._draft = ExitStack()
        self._description: Description | None = None
        self._folder: Path | None = None

    def path(self, *parts: str) -> Path:
        """Where to write `parts` (`writer.path("index", "vectors.npy")`); the folder that it stands in exists."""
        path = self._temporary.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def graph(self, name: str) -> Path:
        """Where to write the SavedModel `name` of `layout.GRAPHS`; its folder gets the bundle's number in the end."""
        return self.path(graph_folder(name))

    def describe(self, description: Description) -> None:
        """Say what the bundle is; needed once before the block ends."""
        self._description = description

    @property
    def folder(self) -> Path:
        """The published bundle; only after the block."""
        if self._folder is None:
            raise RuntimeError("the bundle is not published before the block has ended without an error")
        return self._folder

    def __enter__(self) -> Self:
        self._temporary = self._draft.enter_context(draft_folder(self._bundles / "bundle"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._draft:
            if kind is None:
                self._folder = self._publish()

    def _publish(self) -> Path:
        if self._description is None:
            raise RuntimeError("BundleWriter.describe was not called")
        while True:
            version = max(numbered(self._bundles), default=0) + 1
            number_graphs(self._temporary, version)
            files = {
                name: FileFacts(sha256=sha256(path), bytes=path.stat().st_size)
                for name, path in sorted(files_in(self._temporary).items())
                if name != MANIFEST
            }
            manifest = Manifest(
                **self._description.model_dump(),
                version=version,
                created=datetime.now(UTC).replace(microsecond=0),
                versions=Versions.installed(),
                files=files,
            )
            (self._temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
            target = self._bundles / str(version)
            try:
                os.replace(self._temporary, target)
            except OSError:
                if target.exists():  # another writer took this number
                    continue
                raise
            return target
