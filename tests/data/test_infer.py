"""Schemas guessed from files of several makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data import names
from recsys.data.infer import Inference, infer
from recsys.data.source import SourceFiles
from recsys.errors import SchemaError

ROWS = 400
USERS = np.arange(ROWS) % 40
ITEMS = (np.arange(ROWS) * 7 + np.arange(ROWS) // 40) % 25

COLOURS = ["red", "green", "blue", '"red, blue"', '"blue, green"', '"red, green"']


def write(path: Path, columns: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return path
    mark = "\t" if path.suffix == ".tsv" else ","
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join(mark.join(map(str, row)) for row in [tuple(columns), *rows]) + "\n", encoding="utf-8")
    return path


def of(events: Path, items: Path | None = None, users: Path | None = None, **given: str) -> Inference:
    return infer(SourceFiles((events,), (items,) if items else None, (users,) if users else None), **given)


def features(inference: Inference) -> dict[str, tuple[str, str]]:
    return {name: (feature.kind, feature.role) for name, feature in inference.table_schema.features.items()}


def test_movielens_csv(tmp_path: Path) -> None:
    ratings = write(
        tmp_path / "ratings.csv",
        {
            "userId": USERS,
            "movieId": ITEMS,
            "rating": (np.arange(ROWS) % 10 + 1) / 2,
            "timestamp": 964_982_703 + np.arange(ROWS) * 977,
        },
    )
    movies = write(
        tmp_path / "movies.csv",
        {
            "movieId": np.arange(25),
            "title": [f'"Film, The {n} (19{n + 50})"' for n in range(25)],
            "genres": [["Drama|War", "Comedy", "War|Comedy|Drama"][n % 3] for n in range(25)],
        },
    )
    found = of(ratings, movies)
    schema = found.table_schema
    assert (schema.user, schema.item, schema.timestamp, schema.timestamp_unit) == (
        "userId",
        "movieId",
        "timestamp",
        "s",
    )
    assert schema.title == "title"
    assert features(found) == {
        "userId": ("categorical", "user"),
        "movieId": ("categorical", "item"),
        "genres": ("multi_valued", "item"),
        "history": ("sequence", "user"),
    }
    assert schema.features["genres"].separator == "|"  # type: ignore[union-attr]
    assert schema.features["history"].of == "movieId"  # type: ignore[union-attr]
    assert found.positives is not None
    assert (found.positives.column, found.positives.at_least) == ("rating", 4.0)
    assert found.split.kind == "temporal"


def test_clicks_parquet_with_milliseconds_and_roles_by_what_is_constant(tmp_path: Path) -> None:
    clicks = write(
        tmp_path / "clicks.parquet",
        {
            "visitor": [f"v{user}" for user in USERS],
            "click_article_id": ITEMS,
            "session_start": 1_506_825_423_000 + np.arange(ROWS) * 1_000,
            "click_timestamp": 1_506_826_828_020 + np.arange(ROWS) * 1_000,
            "section": [f"s{item % 4}" for item in ITEMS],
            "price": ITEMS * 1.5,
            "plan": [["free", "paid"][user % 2] for user in USERS],
            "device": [["app", "web", "tv"][n % 3] for n in range(ROWS)],
            "hour": np.arange(ROWS) % 24,
            "subscribed": np.arange(ROWS) % 7 == 0,
            "load": np.random.default_rng(0).random(ROWS),
            "dwell_time": np.arange(ROWS) % 90,
            "only": ["x"] * ROWS,
            "empty": pa.nulls(ROWS, pa.string()),
            "request_id": [f"r{n}" for n in range(ROWS)],
        },
    )
    found = of(clicks)
    schema = found.table_schema
    assert (schema.user, schema.item) == ("visitor", "click_article_id")
    assert (schema.timestamp, schema.timestamp_unit) == ("click_timestamp", "ms")
    assert found.positives is None
    assert features(found) == {
        "visitor": ("categorical", "user"),
        "click_article_id": ("categorical", "item"),
        "section": ("categorical", "item"),
        "price": ("numeric", "item"),
        "plan": ("categorical", "user"),
        "device": ("categorical", "context"),
        "hour": ("categorical", "context"),
        "subscribed": ("categorical", "context"),
        "load": ("numeric", "context"),
        "request_id": ("categorical", "context"),
        "history": ("sequence", "user"),
    }
    notes = "\n".join(found.notes)
    assert "session_start: left out, a date or time" in notes
    assert "dwell_time: left out, it looks like a result" in notes
    assert "only: left out, one value in all rows" in notes
    assert "empty: left out, empty" in notes


def test_a_column_that_varies_for_some_users_is_no_user_feature(tmp_path: Path) -> None:
    plan = np.array(["a", "b"])[USERS % 2]
    plan[:3] = ["c", "d", "c"]  # 3 of 40 users have two plans
    log = write(tmp_path / "log.parquet", {"user": USERS, "item": ITEMS, "plan": plan})
    assert features(of(log))["plan"] == ("categorical", "context")


def test_ratings_tsv_from_recbole(tmp_path: Path) -> None:
    log = write(
        tmp_path / "ratings.tsv",
        {
            "user_id:token": USERS,
            "item_id:token": ITEMS,
            "rating:float": np.arange(ROWS) % 10 + 1,
            "timestamp:float": 874_724_710 + np.arange(ROWS),
        },
    )
    found = of(log)
    schema = found.table_schema
    assert (schema.user, schema.item, schema.timestamp) == ("user_id:token", "item_id:token", "timestamp:float")
    assert list(schema.features) == ["user_id", "item_id", "history"]
    assert schema.column("item_id") == "item_id:token"
    assert found.positives is not None
    assert (found.positives.column, found.positives.at_least) == ("rating:float", 8.0)


def test_quotes_separators_zip_codes_and_unicode(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.csv",
        {
            "customer_id": [f'"Zoë, {user}"' for user in USERS],
            "sku": [f"商品{item}" for item in ITEMS],
            "стиль": [["тёмный", "светлый"][item % 2] for item in ITEMS],
            "colours": [COLOURS[item % len(COLOURS)] for item in ITEMS],
            "zip": [f"0{user % 9}460" for user in USERS],
            "purchased": np.arange(ROWS) % 2,
        },
    )
    found = of(log)
    assert (found.table_schema.user, found.table_schema.item, found.table_schema.timestamp) == (
        "customer_id",
        "sku",
        None,
    )
    assert found.split.kind == "random"
    assert features(found) == {
        "customer_id": ("categorical", "user"),
        "sku": ("categorical", "item"),
        "feature": ("categorical", "item"),  # стиль: TensorFlow takes ASCII names only
        "colours": ("multi_valued", "item"),
        "zip": ("categorical", "user"),
    }
    assert found.table_schema.column("feature") == "стиль"
    assert found.table_schema.features["colours"].separator == ", "  # type: ignore[union-attr]
    assert found.positives is not None
    assert (found.positives.column, found.positives.at_least) == ("purchased", 1.0)


def test_lists_vectors_and_other_types_of_an_items_table(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"uid": USERS, "asin": ITEMS})
    items = write(
        tmp_path / "items.parquet",
        {
            "asin": np.arange(25),
            "name": [f"thing {n}" for n in range(25)],
            "tags": [["a", "b"][: n % 3] for n in range(25)],
            "image": pa.array([[0.5] * 4] * 25, pa.list_(pa.float32())),
            "fixed": pa.array([[0.5] * 3] * 25, pa.list_(pa.float32(), 3)),
            "ragged": [[0.5] * (1 + n % 2) for n in range(25)],
            "brand": [f"b{n % 3}" for n in range(25)],
            "serial": [f"x{n}" for n in range(25)],
            "about": [f"{n} " + "words " * 20 for n in range(25)],
            "listed": pa.array([n * 1_000_000 for n in range(25)], pa.timestamp("us")),
            "facts": [{"a": n} for n in range(25)],
        },
    )
    found = of(log, items)
    assert found.table_schema.title == "name"
    assert features(found) == {
        "uid": ("categorical", "user"),
        "asin": ("categorical", "item"),
        "tags": ("multi_valued", "item"),
        "image": ("vector", "item"),
        "fixed": ("vector", "item"),
        "brand": ("categorical", "item"),
    }
    assert found.table_schema.features["fixed"].dim == 3  # type: ignore[union-attr]
    no_time, *others = found.notes
    assert no_time.startswith("no column tells the time: a random split and no histories")
    assert [note.partition(":")[0] for note in others] == ["ragged", "serial", "about", "listed", "facts"]


def test_a_column_in_both_tables_is_read_from_the_items(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"uid": USERS, "asin": ITEMS, "brand": [f"b{n % 3}" for n in ITEMS]})
    items = write(tmp_path / "items.parquet", {"asin": np.arange(25), "brand": [f"b{n % 3}" for n in range(25)]})
    assert list(features(of(log, items))) == ["uid", "asin", "brand"]


def test_a_time_with_holes_and_a_mere_order(tmp_path: Path) -> None:
    stamps = pa.array([None if n == 5 else 1_506_826_828 + n for n in range(ROWS)], pa.int64())
    log = write(tmp_path / "log.parquet", {"user": USERS, "item": ITEMS, "ts": stamps, "position": np.arange(ROWS)})
    found = of(log)
    assert found.table_schema.timestamp == "position"
    assert found.split.kind == "leave_last_out"
    assert found.notes == (
        "ts: not taken as the time, 1 row lacks it",
        "position: taken as the order of a user's events; it is no clock",
    )
    assert "ts" not in found.table_schema.features
    # `user` and `item` are columns of the prepared tables.
    assert list(found.table_schema.features) == ["user_user", "item_item", "history"]


@pytest.mark.parametrize("text", ["2024-01-{day:02}", "2024-01-{day:02} 10:00:00.5", "2024-01-{day:02}T10:00:00+02:00"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_times_in_iso_text(tmp_path: Path, text: str, suffix: str) -> None:
    times = [text.format(day=n % 28 + 1) for n in range(ROWS)]
    until = [text.format(day=(n + 1) % 28 + 1) for n in range(ROWS)]
    log = write(
        tmp_path / f"log{suffix}", {"uid": USERS, "asin": ITEMS, "until": until, "date": until, "timestamp": times}
    )
    found = of(log)
    assert (found.table_schema.timestamp, found.table_schema.timestamp_unit) == ("timestamp", "s")
    assert found.split.kind == "temporal"
    assert list(found.table_schema.features) == ["uid", "asin", "history"]
    assert found.notes == ("until: left out, a date or time", "date: left out, a date or time")
    assert of(log, timestamp="until").table_schema.timestamp == "until"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("noon", "its text is not ISO 8601 in every row (such as 2024-01-31T10:00:00Z)"),
        ("1704067200", "its text is not ISO 8601 in every row (such as 2024-01-31T10:00:00Z)"),
        ("2023-02-29", "its text is not ISO 8601 in every row (such as 2024-01-31T10:00:00Z)"),
        ("", "1 row lacks it"),
    ],
)
def test_one_note_says_why_a_column_is_not_the_time(tmp_path: Path, odd: str, reason: str) -> None:
    log = write(tmp_path / "log.csv", {"uid": USERS, "asin": ITEMS, "date": [odd] + ["2024-01-02"] * (ROWS - 1)})
    found = of(log)
    assert found.split.kind == "random"
    assert list(found.table_schema.features) == ["uid", "asin"]
    assert found.notes == (
        "no column tells the time: a random split and no histories (name one: --timestamp COLUMN)",
        f"date: not taken as the time, {reason}",
    )


def test_a_time_by_name_that_rows_lack(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", {"uid": USERS, "asin": ITEMS, "when": ["", ""] + ["2024-01-02"] * (ROWS - 2)})
    with pytest.raises(SchemaError, match=r"--timestamp: column 'when': 2 rows lack it; expected a time in every row"):
        of(log, timestamp="when")


@pytest.mark.parametrize(
    ("first", "unit"), [(1_506_826_828, "s"), (1_506_826_828_020, "ms"), (1_506_826_828_020_000, "us")]
)
def test_units_by_magnitude(tmp_path: Path, first: int, unit: str) -> None:
    log = write(tmp_path / "log.parquet", {"user": USERS, "item": ITEMS, "when": first + np.arange(ROWS)})
    assert of(log).table_schema.timestamp is None
    assert of(log, timestamp="when").table_schema.timestamp_unit == unit


def test_an_order_by_name(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"uid": USERS, "asin": ITEMS, "turn": np.arange(ROWS)})
    found = of(log, timestamp="turn")
    assert found.split.kind == "leave_last_out"
    assert found.notes == ("turn: taken as the order of a user's events; it is no clock",)


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"a": USERS, "b": ITEMS, "c": USERS * 0.5})
    with pytest.raises(SchemaError) as caught:
        of(log)
    assert [problem.cure for problem in caught.value.problems] == [
        f"name it: --{who} COLUMN; a log that names none needs a YAML by hand, with schema.{who}: null"
        for who in ("user", "item")
    ]
    assert "columns: a, b, c" in str(caught.value)
    found = of(log, user="a", item="b")
    assert features(found)["c"] == ("numeric", "user")


def test_wrong_columns_by_name_are_refused(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"user": USERS, "item": ITEMS, "x": USERS * 0.5, "when": ["noon"] * ROWS})
    with pytest.raises(SchemaError, match=r"--item: no column 'itm'; expected one of user, item, x, when"):
        of(log, item="itm")
    with pytest.raises(SchemaError, match=r"--user: column 'x' is DOUBLE; expected text or integer"):
        of(log, user="x")
    with pytest.raises(SchemaError, match=r"--timestamp: column 'when' is VARCHAR; expected .* ISO 8601"):
        of(log, timestamp="when")
    with pytest.raises(SchemaError, match="cannot name both the user and the item"):
        of(log, user="item")


def test_an_items_table_without_the_item_column(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", {"user": USERS, "item": ITEMS})
    items = write(tmp_path / "items.parquet", {"id": np.arange(25), "brand": ["b"] * 25})
    with pytest.raises(SchemaError, match=r"items.parquet: no column 'item' \(columns: id, brand\).*rename"):
        of(log, items)


@pytest.mark.parametrize(
    "name", ["user_id", "userId", "uid", "UID", "visitor", "customerID", "user", "reviewerID", "userid"]
)
def test_names_of_users(name: str) -> None:
    assert names.identifies(name, names.USER) == 3.0
    assert names.identifies(name, names.ITEM) == 0.0


@pytest.mark.parametrize(
    "name", ["item_id", "movieId", "sku", "product", "asin", "movieid", "item_id:token", "productID"]
)
def test_names_of_items(name: str) -> None:
    assert names.identifies(name, names.ITEM) == 3.0
    assert names.identifies(name, names.USER) == 0.0


@pytest.mark.parametrize("name", ["user_age", "movie_title", "session_id", "category_id", "confused", "paid"])
def test_names_of_neither(name: str) -> None:
    assert names.identifies(name, names.USER) == 0.0
    assert names.identifies(name, names.ITEM) == 0.0


def test_a_whole_name_is_surer_than_a_part() -> None:
    assert names.identifies("item_id", names.ITEM) > names.identifies("parent_item_id", names.ITEM) > 0
    assert names.clock("timestamp") > names.clock("click_timestamp") > names.clock("created_at") > 0
    assert names.clock("session_start_time") < names.clock("click_time")
