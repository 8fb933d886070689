"""`recsys predict`: recommendations for all known users, or scores of pairs, as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import JsonOption, Output
from recsys.cli.recommend import BundleArgument
from recsys.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa


def predict(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.parquet", help="What to write.")],
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only for those of its column user. [default: all known users]")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Score its pairs, columns user and item, by the ranker.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Items for each user. [default: 100]")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Items that a ranker puts in order for each user. [default: 500]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend to all known users, or score pairs, into a Parquet file."""
    import numpy as np

    from recsys.bundle import Bundle, batch
    from recsys.bundle.table_file import read_table

    if pairs is not None and (users, k, candidates) != (None, None, None):
        found = "--pairs beside --users, -k or --candidates"
        raise ConfigError("command line", found, "pairs, or users", "leave the others out")
    console, loaded = Output(as_json), Bundle.load(bundle)
    if candidates is not None and loaded.manifest.ranking is None:
        raise ConfigError("--candidates", "the bundle has no ranker", "one", "recsys export TWO_TOWER --ranker RANKER")
    if pairs is not None:
        table = read_table(pairs, "pairs")
        tables, total, what = batch.score_pairs(loaded, table, str(pairs)), len(table), "pairs"
    else:
        rows = np.arange(len(loaded.users))
        if users is not None:
            rows = batch.rows_of(read_table(users, "users"), "user", loaded.users.table["user"], str(users))
        tables, total = batch.recommend(loaded, rows, k or 100, candidates or batch.CANDIDATES), len(rows)
        what = "users"
    written = batch.write_parquet(out, _shown(console, what, total, tables))
    console.text(f"{total:,} {what}, {written:,} rows")
    console.wrote(out)
    console.result({"path": out, what: total, "rows": written})


def _shown(console: Output, what: str, total: int, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with a bar that says how many users or pairs are done."""
    with console.progress() as progress:
        task = progress.add_task(what, total=total)
        for table in tables:
            done = len(table) if what == "pairs" else len(table["user"].unique())
            progress.advance(task, done)
            yield table
