"""`recsys items`: new, changed and deleted items of a bundle, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import JsonOption, Output
from recsys.cli.recommend import BundleArgument

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.bundle.new_items import NewItems

app = typer.Typer(
    help="Put items into a bundle, or take them out, without training.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def upsert(
    bundle: BundleArgument,
    items: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Parquet, CSV or JSON lines, with the columns that the source has of items."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Put new items into the next bundle, and change those that are known."""
    from recsys.bundle import Bundle
    from recsys.bundle.new_items import NewItems

    loaded = Bundle.load(bundle)
    _write(loaded, NewItems.read(items, loaded.manifest), [], as_json)


@app.command()
def delete(
    bundle: BundleArgument,
    item: Annotated[list[str], typer.Option(metavar="ITEM", help="Not to be recommended; may be repeated.")],
    as_json: JsonOption = False,
) -> None:
    """Leave items out of the next bundle."""
    from recsys.bundle import Bundle

    _write(Bundle.load(bundle), None, item, as_json)


def _write(bundle: Bundle, upserts: NewItems | None, deletes: list[str], as_json: bool) -> None:
    from recsys.bundle.catalogue_update import next_bundle
    from recsys.bundle.verify import read_manifest

    out = Output(as_json)
    folder = next_bundle(bundle, upserts, deletes)
    manifest = read_manifest(folder)
    count = 0 if upserts is None else len(upserts.ids)
    out.text(f"{count} items new or changed, {len(deletes)} deleted; catalogue {manifest.catalogue}")
    out.wrote(folder)
    out.result({"path": folder, "upserted": count, "deleted": len(deletes), "catalogue": manifest.catalogue})
