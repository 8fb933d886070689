"""`recsys init`: from a data file to a YAML that runs. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli._output import JsonOption, Output


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The event log: Parquet, CSV or TSV.")],
    items: Annotated[Path | None, typer.Option(metavar="FILE", help="One row per item.")] = None,
    users: Annotated[Path | None, typer.Option(metavar="FILE", help="One row per user.")] = None,
    out_path: Annotated[Path | None, typer.Option("--out", metavar="NAME.yaml", help="The YAML to write.")] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that names the user.")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that names the item.")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column with the event's time.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the YAML.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a starter YAML for your data, with an inferred schema."""
    import os
    import re

    from recsys.cli._starter import starter
    from recsys.data.infer import infer
    from recsys.data.source import SourceFiles
    from recsys.errors import ConfigError
    from recsys.files import write_text

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (out_path or file).stem).strip("-._") or "experiment"
    path = out_path or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise ConfigError(str(path), "is already there", cure="name another file by --out, or overwrite it by --force")
    files = {"events": file, **({"items": items} if items else {}), **({"users": users} if users else {})}
    for kind, given in files.items():
        if not given.is_file():
            raise ConfigError(
                f"recsys init: {kind}", f"no file {given}", "a Parquet, CSV or TSV file", "correct the path"
            )
    source = SourceFiles((file,), (items,) if items else None, (users,) if users else None)
    inference = infer(source, user, item, timestamp)
    relative = {kind: os.path.relpath(given.resolve(), path.parent.resolve()) for kind, given in files.items()}
    write_text(path, starter(name, relative, inference))

    out, schema = Output(as_json), inference.table_schema
    out.table(
        "features",
        ("feature", "kind", "describes"),
        [(name, feature.kind, feature.role) for name, feature in schema.features.items()],
    )
    for note in inference.notes:
        out.text(f"note: {note}")
    out.wrote(path)
    out.text(f"next: recsys run {path}")
    plain = schema.model_dump(mode="json", exclude_defaults=True)
    out.result({"path": path, "schema": plain, "notes": list(inference.notes)})
