"""Public data sets: every known layout gives the same clean tables; downloads are checked, whole or absent."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys.data.public import DATASETS, fetch, locate, store, tables
from recsys.data.public.definition import Download
from recsys.errors import ConfigError, DataError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RECSYS_DATA, and a cache of its own."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("RECSYS_DATA", str(root))
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return root


def put(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def rows(paths: tuple[Path, ...] | None) -> list[dict[str, Any]]:
    assert paths is not None
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


FLAGS = "0|0|1|1|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
GENRES = "unknown|Action|Adventure|Animation|Children's|Comedy|" + "|".join(f"genre {n}" for n in range(6, 19))
ML_100K_PUBLISHED = {
    "u.data": "196\t2\t3\t881250949\n186\t1\t5\t891717742\n",
    "u.item": (f"1|Misérables, Les (1995)|01-Jan-1995||http://imdb|{FLAGS}\n2|unknown||||1{'|0' * 18}\n").encode(
        "latin-1"
    ),
    "u.user": "186|24|M|technician|85711\n196|53|F|other|T8H1N\n",
    "u.genre": "".join(f"{name}|{n}\n" for n, name in enumerate(GENRES.split("|"))) + "\n",
}
ML_100K_RECBOLE = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "196\t2\t3\t881250949\n186\t1\t5\t891717742\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tMisérables, Les\t1995\tAdventure Animation Comedy\n2\tunkonwn\tunkonwn\tunknown\n",
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "186\t24\tM\ttechnician\t85711\n196\t53\tF\tother\tT8H1N\n",
}


@pytest.mark.parametrize("files", [ML_100K_PUBLISHED, ML_100K_RECBOLE], ids=["published", "recbole"])
def test_movielens_100k_is_the_same_from_either_layout(data: Path, files: dict[str, str | bytes]) -> None:
    put(data / "ml-100k", files)
    source = tables("movielens-100k")
    assert rows(source.events) == [
        {"user_id": 196, "movie_id": 2, "rating": 3.0, "timestamp": 881250949},
        {"user_id": 186, "movie_id": 1, "rating": 5.0, "timestamp": 891717742},
    ]
    assert rows(source.items) == [
        {
            "movie_id": 1,
            "title": "Misérables, Les (1995)",
            "year": 1995,
            "genres": ["Adventure", "Animation", "Comedy"],
        },
        {"movie_id": 2, "title": "unknown", "year": None, "genres": ["unknown"]},
    ]
    assert rows(source.users) == [
        {"user_id": 186, "gender": "M", "age": 24, "occupation": "technician", "zip": "85711"},
        {"user_id": 196, "gender": "F", "age": 53, "occupation": "other", "zip": "T8H1N"},
    ]


ML_1M = {
    "ratings.dat": "1::2::5::978300760\n1::1::3::978302109\n",
    "movies.dat": "1::Cité, La: 2001 (1995)::Drama|Sci-Fi\n2::Jumanji (1995)::Comedy\n".encode("latin-1"),
    "users.dat": "1::F::1::10::02460\n",
}


def test_movielens_1m_as_published(data: Path) -> None:
    put(data / "ml-1m", ML_1M)
    source = tables("movielens-1m")
    assert rows(source.events)[1] == {"user_id": 1, "movie_id": 1, "rating": 3.0, "timestamp": 978302109}
    assert rows(source.items)[0] == {
        "movie_id": 1,
        "title": "Cité, La: 2001 (1995)",
        "year": 1995,
        "genres": ["Drama", "Sci-Fi"],
    }
    assert rows(source.users) == [{"user_id": 1, "gender": "F", "age": 1, "occupation": 10, "zip": "02460"}]


def test_movielens_latest_small_quotes_and_missing_genres(data: Path) -> None:
    movies = 'movieId,title,genres\n1,"11\'09""01 - September 11 (2002)",Drama|War\n2,Odd,(no genres listed)\n'
    put(
        data / "ml-latest-small",
        {"ratings.csv": "userId,movieId,rating,timestamp\n7,1,0.5,964982703\n", "movies.csv": movies},
    )
    source = tables("movielens-latest-small")
    assert source.users is None
    assert rows(source.events) == [{"user_id": 7, "movie_id": 1, "rating": 0.5, "timestamp": 964982703}]
    assert rows(source.items) == [
        {"movie_id": 1, "title": "11'09\"01 - September 11 (2002)", "year": 2002, "genres": ["Drama", "War"]},
        {"movie_id": 2, "title": "Odd", "year": None, "genres": []},
    ]


def test_s3rec_sequences_become_events_with_positions(data: Path) -> None:
    put(
        data / "s3rec-sequences",
        {"Yelp.txt": "1 5 6 5\r\n2 6 7\n", "Yelp_item2attributes.json": '{"6": [1, 2], "5": [3], "7": []}'},
    )
    source = tables("yelp")
    events = [(row["user_id"], row["item_id"], row["position"]) for row in rows(source.events)]
    assert events == [(1, 5, 0), (1, 6, 1), (1, 5, 2), (2, 6, 0), (2, 7, 1)]
    assert rows(source.items) == [
        {"item_id": 5, "attributes": ["3"], "category": "3"},
        {"item_id": 6, "attributes": ["1", "2"], "category": "2"},
        {"item_id": 7, "attributes": [], "category": None},
    ]


def test_globo_as_published(data: Path) -> None:
    head = (
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
        "click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"
    )
    put(
        data / "globo",
        {
            "clicks/clicks_hour_000.csv": head + "0,11,1506826800000,2,157541,1506826828020,4,3,20,1,20,2\n",
            "clicks/clicks_hour_001.csv": head + "0,11,1506826800000,2,68866,1506826858020,4,3,20,1,20,2\n",
            "articles_metadata.csv": "article_id,category_id,created_at_ts,publisher_id,words_count\n"
            "157541,281,1,0,9\n68866,136,1,0,9\n",
        },
    )
    source = tables("globo")
    assert [row["article_id"] for row in rows(source.events)] == [157541, 68866]
    assert rows(source.events)[0]["device_group"] == 3
    assert rows(source.items)[0] == {"article_id": 68866, "category_id": 136, "category_bucket": 136}


def packed(file: str, text: str) -> bytes:
    return gzip.compress(text.encode()) if file.endswith(".gz") else text.encode()


CRITEO_LINES = "\n".join(
    "\t".join([label, *numbers.split(","), *(["68fd1e64"] * 25), last])
    for label, numbers, last in (("1", "1,-2,0,,5,6,7,8,9,10,11,12,13", ""), ("0", ",,,,,,,,,,,,", "9727dd16"))
)


@pytest.mark.parametrize("file", ["train.txt", "train.txt.gz", "train_examples.txt"])
def test_criteo_in_full_packed_or_as_a_sample(data: Path, file: str) -> None:
    put(data / "criteo", {file: packed(file, CRITEO_LINES + "\n")})
    first, second = rows(tables("criteo").events)
    assert list(first) == ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    assert [first[f"I{n}"] for n in range(1, 6)] == [1, -2, 0, None, 5]
    assert (first["label"], first["C25"], first["C26"]) == (1, "68fd1e64", None)
    assert (second["label"], second["I1"], second["I13"], second["C26"]) == (0, None, None, "9727dd16")


AVAZU_HEAD = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
AVAZU_HEAD += "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"


def avazu_line(number: int, hour: str) -> str:
    return f"{number},{number % 2},{hour},1005,0,{','.join(['1fbe01fe'] * 9)},1,2,15706,320,50,1722,0,35,-1,79\n"


@pytest.mark.parametrize("file", ["train.csv", "train.gz"])
def test_avazu_in_full_or_packed(data: Path, file: str) -> None:
    lines = AVAZU_HEAD + avazu_line(10**19 + 1, "14102623") + avazu_line(2, "14102100")
    put(data / "avazu", {file: packed(file, lines)})
    sunday, tuesday = rows(tables("avazu").events)
    assert (sunday["id"], sunday["click"], sunday["hour"], sunday["C20"]) == (str(10**19 + 1), 1, "14102623", "-1")
    assert [sunday[name] for name in ("hour_of_day", "weekday", "is_weekend")] == [23, 0, True]
    assert [tuesday[name] for name in ("hour_of_day", "weekday", "is_weekend")] == [0, 2, False]
    assert sunday["timestamp"] == 1414364400  # 2014-10-26 23:00 UTC


def test_the_avazu_sample_s_second_file_has_no_header(data: Path) -> None:
    lines = {"train_first9000.csv": AVAZU_HEAD + avazu_line(1, "14102100"), "test_next.csv": avazu_line(2, "14102100")}
    put(data / "avazu-9k", lines)
    assert sorted(row["id"] for row in rows(tables("avazu").events)) == ["1", "2"]


def test_frappe(data: Path) -> None:
    put(
        data / "frappe",
        {
            "frappe.csv": "user\titem\tcnt\tdaytime\tweekday\tisweekend\thomework\tcost\tweather\tcountry\tcity\n"
            "3\t1\t7\tmorning\tsunday\tweekend\tunknown\tfree\tsunny\tSpain\t0\n",
            "meta.csv": "item\tpackage\tcategory\tdownloads\tdeveloper\ticon\tlanguage\tdescription\tname\tprice"
            "\trating\tshort desc\n"
            '1\tcom.a\tTools\t1,000 - 5,000\tA\thttp\ten\tSay "hi"\tA\'s\tFree\t4.5\tx\n'
            "0\tcom.b\tunknown\tunknown\tunknown\tunknown\tunknown\tunknown\tunknown\tunknown\tunknown\tunknown\n",
        },
    )
    source = tables("frappe")
    assert rows(source.events)[0]["daytime"] == "morning"
    assert [(row["item_id"], row["category"], row["rating"]) for row in rows(source.items)] == [
        (0, None, None),
        (1, "Tools", 4.5),
    ]


def test_tables_are_made_anew_only_when_a_file_changes(data: Path) -> None:
    folder = put(data / "ml-1m", ML_1M)
    first = tables("movielens-1m")
    written = first.events[0].stat().st_mtime_ns
    assert tables("movielens-1m") == first
    assert first.events[0].stat().st_mtime_ns == written
    put(folder, {"ratings.dat": "1::2::4::978300760\n"})
    second = tables("movielens-1m")
    assert second.events != first.events
    assert [row["rating"] for row in rows(second.events)] == [4.0]


def test_files_that_are_not_the_data_set_leave_nothing_behind(data: Path, tmp_path: Path) -> None:
    put(data / "ml-1m", {**ML_1M, "users.dat": "1::F::young::10::02460\n"})
    with pytest.raises(DataError, match=r"ml-1m: the users cannot be read .*; compare the files") as caught:
        tables("movielens-1m")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "tables").iterdir()) == []


def test_an_unknown_name_is_answered_with_the_nearest(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"none is named 'movielens-10m'; .*did you mean 'movielens-1"):
        locate("movielens-10m")


def test_recsys_data_must_be_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"RECSYS_DATA: there is no folder .*nowhere"):
        locate("movielens-1m")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served on loopback, and its address."""
    site = tmp_path / "site"
    site.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield site, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def publish_1m(publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, files: dict[str, str | bytes]) -> Path:
    """MovieLens-1M as its publisher has it: a zip with a folder in it, and its MD5 beside it."""
    site, address = publisher
    archive = site / "ml-1m.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("ml-1m/README", "read me")
        for name, text in files.items():
            content.writestr(f"ml-1m/{name}", text)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    (site / "ml-1m.zip.md5").write_text(f"MD5 (ml-1m.zip) = {md5}\n")
    url = f"{address}/ml-1m.zip"
    definition = replace(DATASETS["movielens-1m"], downloads=(Download(url, f"{url}.md5"),))
    monkeypatch.setitem(store.DATASETS, "movielens-1m", definition)
    return archive


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "public").iterdir())


def test_fetch_downloads_once_verifies_and_keeps_only_the_data(
    data: Path, tmp_path: Path, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = publish_1m(publisher, monkeypatch, ML_1M)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert locate("movielens-1m") is None
    folder = fetch("movielens-1m")
    assert sorted(path.name for path in folder.iterdir()) == ["movies.dat", "ratings.dat", "users.dat"]
    pins = json.loads((tmp_path / "cache/public/checksums.json").read_text())
    assert list(pins.values()) == [sha256]
    archive.unlink()
    assert fetch("movielens-1m") == locate("movielens-1m") == folder
    assert len(rows(tables("movielens-1m").events)) == 2


def test_recsys_data_comes_before_the_cache(
    data: Path, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_1m(publisher, monkeypatch, ML_1M)
    fetch("movielens-1m")
    local = put(data / "ml-1m", {**ML_1M, "ratings.dat": "1::2::1::978300760\n"})
    assert locate("movielens-1m") == local
    assert [row["rating"] for row in rows(tables("movielens-1m").events)] == [1.0]


def test_a_wrong_publishers_checksum_is_refused(
    data: Path, tmp_path: Path, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_1m(publisher, monkeypatch, ML_1M)
    (publisher[0] / "ml-1m.zip.md5").write_text("0" * 32 + "  ml-1m.zip\n")
    with pytest.raises(DataError, match=r"MD5 is [0-9a-f]{32}; expected 0{32}"):
        fetch("movielens-1m")
    assert cached(tmp_path) == []
    assert locate("movielens-1m") is None


def test_a_download_unlike_the_first_one_is_refused(
    data: Path, tmp_path: Path, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_1m(publisher, monkeypatch, ML_1M)
    folder = fetch("movielens-1m")
    for path in (*folder.iterdir(), folder):
        path.rmdir() if path.is_dir() else path.unlink()
    publish_1m(publisher, monkeypatch, {**ML_1M, "ratings.dat": "1::2::1::978300760\n"})
    with pytest.raises(DataError, match=r"SHA-256 is .*that of the first download \(pinned in .*remove its line"):
        fetch("movielens-1m")
    assert cached(tmp_path) == ["checksums.json"]


def test_no_network_says_what_to_do_in_one_line(
    data: Path, tmp_path: Path, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_1m(publisher, monkeypatch, ML_1M).unlink()
    with pytest.raises(
        DataError, match=r"cannot download http.*ml-1m.zip .*RECSYS_DATA.*ml-1m/.*data simulate"
    ) as caught:
        fetch("movielens-1m")
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == []


def test_a_set_without_a_download_tells_how_to_get_it_by_hand(data: Path) -> None:
    with pytest.raises(DataError, match=r"globo: not found.*by hand from https://www.kaggle.com.*clicks_hour.*globo/"):
        fetch("globo")


REAL = {
    "movielens-100k": ("ml-100k", 100_000, 1_682, 943),
    "movielens-1m": ("ml-1m", 1_000_209, 3_883, 6_040),
    "movielens-latest-small": ("ml-latest-small", 100_836, 9_742, None),
    "amazon-beauty": ("s3rec-sequences", 198_502, 12_101, None),
    "amazon-sports": ("s3rec-sequences", 296_337, 18_357, None),
    "amazon-toys": ("s3rec-sequences", 167_597, 11_924, None),
    "yelp": ("s3rec-sequences", 316_354, 20_033, None),
    "globo": ("globo", 2_988_181, 46_033, None),
    "frappe": ("frappe", 96_203, 4_082, None),
}
CLICKS = {"criteo": ("criteo-10k", 10_000, 40, "label", 2_182), "avazu": ("avazu-9k", 9_999, 28, "click", 1_706)}
"""Samples of the sets without users and items: folder, lines, columns, clicks."""


def test_every_public_set_has_published_counts_here() -> None:
    assert {*REAL, *CLICKS} == set(DATASETS)


@pytest.mark.parametrize("name", CLICKS)
def test_counts_of_the_sample_of_clicks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lines, columns, label, clicks = CLICKS[name]
    root = os.environ.get("RECSYS_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"RECSYS_DATA holds no {folder}")
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    source = tables(name)
    assert source.items is None
    assert source.users is None
    table = pq.read_table(source.events[0])
    assert table.shape == (lines, columns)
    assert sum(table[label].to_pylist()) == clicks
    if name == "criteo":
        assert min(filter(lambda x: x is not None, table["I2"].to_pylist())) == -2
        assert {len(text) for text in table["C3"].to_pylist() if text is not None} == {8}
    else:
        assert len(set(table["id"].to_pylist())) == lines
        assert set(table["hour"].to_pylist()) == {"14102100"}


@pytest.mark.parametrize("name", REAL)
def test_counts_of_the_real_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, events, items, users = REAL[name]
    root = os.environ.get("RECSYS_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"RECSYS_DATA holds no {folder}")
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    source = tables(name)
    assert source.items is not None
    assert pq.read_metadata(source.events[0]).num_rows == events
    assert pq.read_metadata(source.items[0]).num_rows == items
    assert (pq.read_metadata(source.users[0]).num_rows if source.users else None) == users
    item = pq.read_schema(source.items[0]).names[0]
    known = set(pq.read_table(source.items[0], columns=[item])[item].to_pylist())
    rated = pq.read_table(source.events[0], columns=[item])[item].unique().to_pylist()
    assert known.issuperset(rated)
    if name == "movielens-1m":
        assert len(rated) == 3_706
