"""`recsys recommend`: recommendations of a bundle on the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from serving import Pipeline
    from serving.messages import Item, Recommended

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
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Items of which it holds: genre=drama, 'price<=20', or JSON; all that are given.",
        ),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="ITEM", help="Of these alone; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="ITEM", help="Not this item; may be repeated.")] = None,
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
        if where or only or exclude:
            given = f"--where, --only or --exclude beside {beside[0]}"
            raise ConfigError("command line", given, "them with a user or features", "leave them out")
        _beside(bundle, out, similar, complement, k)
        return
    raw = None if features is None else _parsed(features, "--features", """such as --features '{"age": 35}'""")

    from recsys.bundle import Bundle
    from serving import Pipeline, Request

    request = Request.of(
        user=user, features=raw, k=k, where=_conditions(where or []), only=only or None, exclude=exclude or []
    )
    pipeline = Pipeline(Bundle.load(bundle))
    found = pipeline.recommend(request)
    liked = [] if user is None else _liked(pipeline, user, raw)

    titled = any(item.title for item in [*liked, *found.items])
    if liked:
        out.table(f"User {user} liked lately", _columns(titled), [_cells(item, titled) for item in liked])
    elif user is not None:
        out.text(f"User {user} has no history.")
    _ranked(out, f"{found.bundle.name} {found.bundle.version} recommends", found.items, titled)
    told = found.model_dump(exclude_defaults=True, exclude={"milliseconds", "request_id"})
    out.result(told | {"liked": [item.model_dump() for item in liked]})


def _liked(pipeline: Pipeline, user: str, features: object) -> list[Item]:
    """A user's newest items; none of a user who is not known, if there are features to recommend by."""
    from recsys.bundle import UnknownUserError

    try:
        return pipeline.history(user, LIKED)
    except UnknownUserError:
        if features is None:
            raise
        return []


def _beside(bundle: Path, out: Output, similar: str | None, complement: str | None, k: int) -> None:
    """What is like an item, or goes with it."""
    from recsys.bundle import Bundle
    from serving import Pipeline
    from serving.messages import BesideRequest

    if similar is not None:
        title, request = f"Like {similar}", BesideRequest.of(item=similar, k=k)
    else:
        title, request = f"Goes with {complement}", BesideRequest.of(item=complement, k=k, kind="complement")
    found = Pipeline(Bundle.load(bundle)).beside(request)
    _ranked(out, title, found.items, any(item.title for item in found.items))
    out.result(found.model_dump(exclude_defaults=True))


def _ranked(out: Output, title: str, items: Sequence[Recommended], titled: bool) -> None:
    rows = [(rank, *_cells(item, titled), item.score) for rank, item in enumerate(items, start=1)]
    out.table(title, ("rank", *_columns(titled), "score"), rows)


def _columns(titled: bool) -> tuple[str, ...]:
    return ("title", "item") if titled else ("item",)


def _cells(item: Item, titled: bool) -> tuple[str, ...]:
    return (item.title or "", item.item) if titled else (item.item,)


_OPERATORS = {"<=": "at_most", ">=": "at_least", "!=": "not_in", "=": "equals", "<": "below", ">": "above"}
_CONDITION = re.compile(rf"(?P<column>[^<>=!]+)(?P<operator>{'|'.join(_OPERATORS)})(?P<value>.*)", re.DOTALL)


def _conditions(given: list[str]) -> dict[str, Any] | None:
    """What a request's `where` holds; conditions on one column are one."""
    found: dict[str, Any] = {}
    for each in given:
        for column, condition in _condition(each).items():
            both = {**found.get(column, {}), **condition}
            if len(both) < len(found.get(column, {})) + len(condition):
                raise ConfigError(
                    f"--where {each}", f"says twice what {column} must be", "one condition of a kind", "remove one"
                )
            found[column] = both
    return found or None


def _condition(text: str) -> dict[str, dict[str, Any]]:
    if text.lstrip().startswith("{"):
        parsed = _parsed(text, "--where", """such as --where '{"genre": {"in": ["drama", "noir"]}}'""")
        return {
            name: value if isinstance(value, dict) else {"in" if isinstance(value, list) else "equals": value}
            for name, value in parsed.items()
        }
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(f"--where {text}", "is no condition", "COLUMN=VALUE, COLUMN<=NUMBER or JSON", "quote it")
    operator = _OPERATORS[match["operator"]]
    value: Any = match["value"]
    if operator not in ("equals", "not_in"):
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"--where {text}", f"{value!r} is no number", "a number", "compare numbers") from None
    return {match["column"].strip(): {operator: [value] if operator == "not_in" else value}}


def _parsed(text: str, option: str, example: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(option, f"is no JSON ({error})", "a JSON object", example) from error
