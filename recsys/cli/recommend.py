"""`recsys recommend`: recommendations of a bundle on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from serving.recommender import Item, Recommended

LIKED = 10
"""How many of the user's latest items stand above the recommendations."""

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a run directory that has one.")]


def recommend(
    bundle: BundleArgument,
    user: Annotated[str | None, typer.Option(help="A user that the bundle knows.")] = None,
    similar: Annotated[str | None, typer.Option(metavar="ITEM", help="Items like this one.")] = None,
    complement: Annotated[str | None, typer.Option(metavar="ITEM", help="Items that go with this one.")] = None,
    features: Annotated[
        str | None, typer.Option(metavar="JSON", help="Raw features by name, alone or in place of some of the user's.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a user, or beside an item, on the terminal."""
    beside = [name for name, item in {"--similar": similar, "--complement": complement}.items() if item is not None]
    asked = [*beside, *(["--user or --features"] if user is not None or features is not None else [])]
    if len(asked) > 1:
        raise ConfigError("command line", " and ".join(asked), "one of them", "ask for one at a time")
    if not asked:
        expected = "one of --user, --features, --similar, --complement"
        raise ConfigError("command line", "nobody to recommend to, and no item", expected, "such as --user 42")
    out = Output(as_json)
    if similar is not None or complement is not None:
        _beside(bundle, out, similar, complement, k)
        return
    raw = None if features is None else _parsed(features)

    from recsys.bundle import Bundle
    from serving import Recommender, Request

    request = Request.of(user=user, features=raw, k=k)
    recommender = Recommender(Bundle.load(bundle))
    found = recommender.recommend(request)
    liked = [] if user is None else recommender.liked(user, LIKED)

    titled = any(item.title for item in [*liked, *found.items])
    if liked:
        out.table(f"User {user} liked lately", _columns(titled), [_cells(item, titled) for item in liked])
    elif user is not None:
        out.text(f"User {user} has no history.")
    _ranked(out, f"{found.bundle.name} {found.bundle.version} recommends", found.items, titled)
    out.result(found.model_dump() | {"liked": [item.model_dump() for item in liked]})


def _beside(bundle: Path, out: Output, similar: str | None, complement: str | None, k: int) -> None:
    """What is like an item, or goes with it."""
    from recsys.bundle import Bundle
    from serving import Recommender, Request

    asked = Request.of(features={}, k=k)
    recommender = Recommender(Bundle.load(bundle))
    if similar is not None:
        title, found = f"Like {similar}", recommender.similar(similar, asked.k)
    else:
        assert complement is not None
        title, found = f"Goes with {complement}", recommender.complements(complement, asked.k)
    _ranked(out, title, found, any(item.title for item in found))
    item = similar if similar is not None else complement
    out.result({"item": item, "items": [each.model_dump() for each in found], "bundle": recommender.name.model_dump()})


def _ranked(out: Output, title: str, items: Sequence[Recommended], titled: bool) -> None:
    rows = [(rank, *_cells(item, titled), item.score) for rank, item in enumerate(items, start=1)]
    out.table(title, ("rank", *_columns(titled), "score"), rows)


def _columns(titled: bool) -> tuple[str, ...]:
    return ("title", "item") if titled else ("item",)


def _cells(item: Item, titled: bool) -> tuple[str, ...]:
    return (item.title or "", item.item) if titled else (item.item,)


def _parsed(features: str) -> Any:
    try:
        return json.loads(features)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "--features", f"is no JSON ({error})", "a JSON object", """such as --features '{"age": 35}'"""
        ) from error
