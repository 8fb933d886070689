"""`recsys recommend`: recommendations of a bundle on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from serving.recommender import Item

LIKED = 10
"""How many of the user's latest items stand above the recommendations."""

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a run directory that has one.")]


def recommend(
    bundle: BundleArgument,
    user: Annotated[str | None, typer.Option(help="A user that the bundle knows.")] = None,
    features: Annotated[
        str | None, typer.Option(metavar="JSON", help="Raw features by name, alone or in place of some of the user's.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a user on the terminal."""
    if user is None and features is None:
        raise ConfigError("command line", "neither --user nor --features", "one of them", "such as --user 42")
    raw = None if features is None else _parsed(features)

    from recsys.bundle import Bundle
    from serving import Recommender, Request

    request = Request.of(user=user, features=raw, k=k)
    recommender = Recommender(Bundle.load(bundle))
    found = recommender.recommend(request)
    liked = [] if user is None else recommender.liked(user, LIKED)

    out = Output(as_json)
    titled = any(item.title for item in [*liked, *found.items])
    names = ("rank", "title", "item") if titled else ("rank", "item")

    def name_of(item: Item) -> tuple[str, ...]:
        return (item.title or "", item.item) if titled else (item.item,)

    if liked:
        out.table(f"User {user} liked lately", names[1:], [name_of(item) for item in liked])
    elif user is not None:
        out.text(f"User {user} has no history.")
    rows = [(rank, *name_of(item), item.score) for rank, item in enumerate(found.items, start=1)]
    out.table(f"{found.bundle.name} {found.bundle.version} recommends", (*names, "score"), rows)
    out.result(found.model_dump() | {"liked": [item.model_dump() for item in liked]})


def _parsed(features: str) -> Any:
    try:
        return json.loads(features)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "--features", f"is no JSON ({error})", "a JSON object", """such as --features '{"age": 35}'"""
        ) from error
