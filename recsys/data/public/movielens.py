"""MovieLens, by GroupLens: explicit ratings of films.

Tables: events user_id, movie_id, rating, timestamp (seconds; null where a copy lacks it); items movie_id, title (with
its year, as published), year, genres; users user_id, gender, age, occupation, zip.
"""

from __future__ import annotations

from recsys.data.public.definition import Download, Layout, PublicDataset

_PAGE = "https://grouplens.org/datasets/movielens/"
_LICENCE = "GroupLens: research use with acknowledgement; no redistribution, no commercial use without permission"

_YEAR = r"TRY_CAST(regexp_extract(title, '\((\d{4})\)\s*$', 1) AS INTEGER) AS year"
_GENRES = "CASE WHEN genres = '(no genres listed)' THEN [] ELSE string_split(genres, '|') END AS genres"


def _zip(folder: str) -> Download:
    url = f"https://files.grouplens.org/datasets/movielens/{folder}.zip"
    return Download(url, md5_url=f"{url}.md5")


def _table(file: str, columns: str, delimiter: str, encoding: str = "utf-8") -> str:
    """A file without header and quotes; `columns` as in CREATE TABLE."""
    types = ", ".join("'{}': '{}'".format(*column.split()) for column in columns.split(", "))
    return (
        f"read_csv(file('{file}'), delim = '{delimiter}', header = false, quote = '', escape = '', "
        f"encoding = '{encoding}', columns = {{{types}}})"
    )


_100K_ITEM_COLUMNS = "movie_id INTEGER, title VARCHAR, released VARCHAR, video VARCHAR, url VARCHAR, " + ", ".join(
    f"g{n} TINYINT" for n in range(19)
)
_100K = Layout(
    folders=("ml-100k",),
    files=("u.data", "u.item", "u.user", "u.genre"),
    events="SELECT user_id, movie_id, rating, timestamp FROM "
    + _table("u.data", "user_id INTEGER, movie_id INTEGER, rating DOUBLE, timestamp BIGINT", r"\t"),
    items=f"""
        WITH genre AS (
            SELECT list(name ORDER BY id) AS names FROM {_table("u.genre", "name VARCHAR, id INTEGER", "|")}
            WHERE id IS NOT NULL
        ), item AS (
            SELECT *, [{", ".join(f"g{n}" for n in range(19))}] AS flags
            FROM {_table("u.item", _100K_ITEM_COLUMNS, "|", "latin-1")}
        )
        SELECT movie_id, title, {_YEAR}, list_filter(names, lambda name, i: flags[i] = 1) AS genres
        FROM item, genre ORDER BY movie_id""",
    users="SELECT user_id, gender, age, occupation, zip FROM "
    + _table("u.user", "user_id INTEGER, age INTEGER, gender VARCHAR, occupation VARCHAR, zip VARCHAR", "|"),
)
_100K_RECBOLE = Layout(
    folders=("ml-100k",),
    files=("ml-100k.inter", "ml-100k.item", "ml-100k.user"),
    events=r"""
        SELECT "user_id:token"::INTEGER AS user_id, "item_id:token"::INTEGER AS movie_id,
               "rating:float"::DOUBLE AS rating, "timestamp:float"::BIGINT AS timestamp
        FROM read_csv(file('ml-100k.inter'), delim = '\t', header = true, all_varchar = true)""",
    # RecBole has cut the year off the title, and spells the unknown film "unkonwn".
    items=r"""
        WITH item AS (
            SELECT "item_id:token"::INTEGER AS movie_id,
                   replace("movie_title:token_seq", 'unkonwn', 'unknown') AS title,
                   TRY_CAST("release_year:token" AS INTEGER) AS year, string_split("class:token_seq", ' ') AS genres
            FROM read_csv(file('ml-100k.item'), delim = '\t', header = true, all_varchar = true, quote = '')
        )
        SELECT movie_id, title || coalesce(' (' || year || ')', '') AS title, year, genres FROM item""",
    users=r"""
        SELECT "user_id:token"::INTEGER AS user_id, "gender:token" AS gender, "age:token"::INTEGER AS age,
               "occupation:token" AS occupation, "zip_code:token" AS zip
        FROM read_csv(file('ml-100k.user'), delim = '\t', header = true, all_varchar = true)""",
)


def _1m(ratings_file: str, ratings: str, encoding: str) -> Layout:
    movies = _table("movies.dat", "movie_id INTEGER, title VARCHAR, genres VARCHAR", "::", encoding)
    users = "user_id INTEGER, gender VARCHAR, age INTEGER, occupation INTEGER, zip VARCHAR"
    return Layout(
        folders=("ml-1m",),
        files=(ratings_file, "movies.dat", "users.dat"),
        events=f"SELECT user_id::INTEGER AS user_id, movie_id::INTEGER AS movie_id, rating::DOUBLE AS rating, "
        f"timestamp::BIGINT AS timestamp FROM {ratings}",
        items=f"SELECT movie_id, title, {_YEAR}, {_GENRES} FROM {movies}",
        users=f"SELECT * FROM {_table('users.dat', users, '::')}",
    )


_1M_RATINGS = _table("ratings.dat", "user_id INTEGER, movie_id INTEGER, rating INTEGER, timestamp BIGINT", "::")

_LATEST = Layout(
    folders=("ml-latest-small",),
    files=("ratings.csv", "movies.csv"),
    events='SELECT "userId" AS user_id, "movieId" AS movie_id, rating, timestamp '
    "FROM read_csv(file('ratings.csv'), header = true, columns = "
    "{'userId': 'INTEGER', 'movieId': 'INTEGER', 'rating': 'DOUBLE', 'timestamp': 'BIGINT'})",
    items=f'SELECT "movieId" AS movie_id, title, {_YEAR}, {_GENRES} '
    "FROM read_csv(file('movies.csv'), header = true, quote = '\"', escape = '\"', columns = "
    "{'movieId': 'INTEGER', 'title': 'VARCHAR', 'genres': 'VARCHAR'})",
)

MOVIELENS = (
    PublicDataset(
        name="movielens-100k",
        description="100,000 ratings (1 to 5) of 1,682 films by 943 users, 1997-98",
        licence=_LICENCE,
        page=_PAGE + "100k/",
        layouts=(_100K, _100K_RECBOLE),
        downloads=(_zip("ml-100k"),),
    ),
    PublicDataset(
        name="movielens-1m",
        description="1,000,209 ratings (1 to 5) of 3,706 films by 6,040 users, 2000; "
        "a copy with ratings.parquet knows only a tenth of the timestamps",
        licence=_LICENCE,
        page=_PAGE + "1m/",
        layouts=(
            _1m("ratings.dat", _1M_RATINGS, "latin-1"),
            _1m("ratings.parquet", "read_parquet(file('ratings.parquet'))", "utf-8"),
        ),
        downloads=(_zip("ml-1m"),),
    ),
    PublicDataset(
        name="movielens-latest-small",
        description="100,836 ratings (0.5 to 5) of 9,724 films by 610 users, 1996-2018",
        licence="GroupLens: use and redistribution under the same conditions; no commercial use without permission",
        page=_PAGE + "latest/",
        layouts=(_LATEST,),
        downloads=(_zip("ml-latest-small"),),
    ),
)
