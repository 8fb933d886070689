"""`recsys data`: public data sets and simulated ones. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli._output import JsonOption, Output

app = typer.Typer(help="List, fetch and simulate data.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the public data sets: where each is found, how big it is, its licence."""
    from recsys.data.public import DATASETS, locate

    out = Output(as_json)
    listed = []
    for definition in DATASETS.values():
        folder = locate(definition.name)
        size = definition.size(folder) if folder else None
        absent = f"recsys data fetch {definition.name}" if definition.downloads else "to be got by hand"
        here = f"{folder} ({size / 1e6:.1f} MB)" if size is not None else f"not here ({absent})"
        out.text(f"{definition.name}: {here}\n    {definition.description}")
        out.text(f"    licence: {definition.licence}\n    {definition.page}")
        listed.append(
            {
                "name": definition.name,
                "folder": folder,
                "bytes": size,
                "description": definition.description,
                "licence": definition.licence,
                "page": definition.page,
                "by_hand": not definition.downloads,
            }
        )
    out.result({"datasets": listed})


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `recsys data list`.")],
    as_json: JsonOption = False,
) -> None:
    """Find or download a public data set, and write clean tables of it into the cache."""
    from recsys.data import public

    out = Output(as_json)
    out.note(f"licence: {public.dataset(name).licence}")
    folder = public.fetch(name)
    source = public.tables(name)
    out.text(f"found in {folder}")
    for _, paths in source.tables():
        out.wrote(paths[0])
    out.result({"name": name, "folder": folder, "tables": {kind: paths[0] for kind, paths in source.tables()}})


@app.command()
def simulate(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 2_000,
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 1_000,
    events: Annotated[int, typer.Option(min=1, help="Number of events.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes another world.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a log of events whose ground truth is known: latent tastes, Zipf popularity, drift, cold items."""
    from pydantic import ValidationError

    from recsys.data.simulator import TRUTH
    from recsys.data.simulator import simulate as make
    from recsys.data.simulator_config import SimulatorConfig
    from recsys.errors import ConfigError

    out = Output(as_json)
    try:
        config = SimulatorConfig(users=users, items=items, events=events, seed=seed)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError("recsys data simulate", reason) from error
    source = make(config, out_folder)
    for _, paths in source.tables():
        out.wrote(paths[0])
    out.wrote(out_folder / TRUTH)
    out.text(
        f"next: recsys init {source.events[0]} --items {out_folder}/items.parquet --users {out_folder}/users.parquet"
    )
    tables = {kind: paths[0] for kind, paths in source.tables()}
    out.result({"folder": out_folder, "tables": tables, "truth": out_folder / TRUTH})
