"""`recsys recommend`: recommendations of a bundle on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

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
    """Recommend items to a user, beside what they liked lately."""
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
    if liked:
        out.table(f"User {user} liked lately", ("title", "item"), [(item.title or "", item.item) for item in liked])
    elif user is not None:
        out.text(f"User {user} has no history.")
    rows = [(rank, i.title or "", i.item, round(i.score, 4)) for rank, i in enumerate(found.items, start=1)]
    out.table(f"{found.bundle.name} {found.bundle.version} recommends", ("rank", "title", "item", "score"), rows)
    out.result(found.model_dump() | {"liked": [item.model_dump() for item in liked]})


def _parsed(features: str) -> Any:
    try:
        return json.loads(features)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "--features", f"is no JSON ({error})", "a JSON object", """such as --features '{"age": 35}'"""
        ) from error
