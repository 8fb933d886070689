"""`recsys features`: users in the online store that a server reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import JsonOption, Output
from recsys.cli.recommend import BundleArgument

if TYPE_CHECKING:
    from serving.features import FeatureStore

StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL_OR_FILE", help="redis://HOST:PORT/DATABASE, or a SQLite file.")
]
UserOption = Annotated[str, typer.Option("--user", metavar="USER", help="The user's id.")]

app = typer.Typer(
    help="Users of the online store: raw features and histories by id.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def load(bundle: BundleArgument, store: StoreOption, as_json: JsonOption = False) -> None:
    """Put all users of a bundle into the store. An interrupted load goes on; events in the store stay."""
    from recsys.bundle import Bundle
    from serving.features.load import load as load_users

    out = Output(as_json)
    loaded = Bundle.load(bundle)
    with _opened(store) as opened, out.progress() as bar:
        task = bar.add_task("users", total=None)
        count = load_users(loaded, opened, lambda done, total: bar.update(task, completed=done, total=total))
    out.text(f"{count:,} users of {loaded.manifest.name} {loaded.manifest.version} are in {store}")
    out.result({"store": store, "users": count})


@app.command()
def append(
    store: StoreOption,
    user: UserOption,
    item: Annotated[str, typer.Option("--item", metavar="ITEM", help="What the user has chosen.")],
    time: Annotated[
        int | None, typer.Option("--time", help="In the loaded bundle's unit of time; the present by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Append an event to a user's history; the next request sees it."""
    from recsys.bundle.requests import text_of
    from recsys.errors import ConfigError
    from serving.features.store import now

    out = Output(as_json)
    with _opened(store) as opened:
        if time is None:
            state = opened.load_state()
            if state is None:
                expected = "a store whose unit of time is known"
                raise ConfigError("--time", "nothing has been loaded into the store", expected, "give the event's time")
            time = now(state.timestamp_unit)
        try:
            opened.append(text_of(user, "--user"), text_of(item, "--item"), time)
        except ValueError as error:
            raise ConfigError("--time", str(error), "a time in the loaded bundle's unit", "correct it") from error
    out.text(f"appended {item} at {time} to the history of {user}")
    out.result({"store": store, "user": user, "item": item, "time": time})


@app.command()
def show(store: StoreOption, user: UserOption, as_json: JsonOption = False) -> None:
    """Show what the store knows of a user."""
    import json

    from recsys.bundle.requests import text_of
    from recsys.bundle.users import UnknownUserError

    out = Output(as_json)
    with _opened(store) as opened:
        found = opened.get(text_of(user, "--user"))
    if found is None:
        cure = "recsys features load, or recsys features append"
        raise UnknownUserError("--user", f"no user {user!r} in {store}", "a user of the store", cure)
    for name, value in found.features.items():
        out.text(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    events = list(zip(found.times, found.history, strict=True))
    out.table(f"{len(events)} events, the newest first; {len(found.seen)} items seen", ["time", "item"], events[::-1])
    events_json = [{"item": item, "time": time} for time, item in events]
    out.result({"user": user, "features": found.features, "history": events_json, "seen": found.seen})


@contextmanager
def _opened(store: str) -> Iterator[FeatureStore]:
    from serving.features import open_store, store_config

    opened = open_store(store_config(store))
    try:
        yield opened
    finally:
        opened.close()
