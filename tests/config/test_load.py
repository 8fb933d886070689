"""Loading config classes, and the messages for everything that can be wrong."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from recsys.config import dialect
from recsys.config.base import Config, Many
from recsys.config.digest import digest
from recsys.config.json_schema import json_schema
from recsys.config.load import Loaded, load
from recsys.data.config import DataConfig, DuckDBEngine, FilesSource, LeaveLastOut
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import ConfigError
from recsys.schema.config import SchemaConfig


class Files(Config):
    kind: Literal["files"]
    files: Many[str] = ()
    """Not to be taken for the tag of the union, which has the same name."""


class Other(Config):
    kind: Literal["other"]


class Strange(Config):
    """Its rules name keys of the parts, whether the file has them or not."""

    data: DataConfig
    more: dict[str, int]

    @model_validator(mode="after")
    def _never_fits(self) -> Self:
        places: list[tuple[str, ...]] = [
            ("data", "negatives"),
            ("data", "source", "kind"),
            ("more", "a"),
            ("more", "a"),
        ]
        errors = [
            InitErrorDetails(type=PydanticCustomError("misfit", "{text}", {"text": f"rule {n}"}), loc=loc, input=None)
            for n, loc in enumerate(places)
        ]
        raise ValidationError.from_exception_data("Strange", errors)


class Composed(Config):
    """A stand-in for the experiment's config."""

    columns: SchemaConfig
    data: DataConfig
    rate: float = 0.5
    flag: bool = False
    more: Annotated[Files | Other, Field(discriminator="kind")] | None = None


SOURCES = "'files', 'public', 'served', 'simulated' or 'simulated_histories'"
GOOD = """\
columns:
  user: user
  item: item
  timestamp: time
  features:
    movie: {kind: categorical, role: item}
    seen: {kind: sequence, of: movie}
data:
  source:
    kind: files
    events: ratings.parquet
  positives: {column: rating, at_least: 4}
"""


def load_text(folder: Path, text: str, *overrides: str) -> Loaded[Composed]:
    path = folder / "c.yaml"
    path.write_text(text)
    return load(path, Composed, overrides, {})


def messages(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_text(folder, text, *overrides)
    return [str(problem).replace(f"{folder}/", "") for problem in error.value.problems]


def test_a_good_file(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, GOOD, "data.split={kind: leave_last_out}", "rate=1e-3")
    assert loaded.config.data.source == FilesSource(kind="files", events="ratings.parquet")
    assert loaded.config.data.split == LeaveLastOut(kind="leave_last_out")
    assert loaded.config.data.engine == DuckDBEngine()
    assert loaded.config.rate == 0.001
    assert loaded.path == tmp_path / "c.yaml"


def test_where_names_the_line_of_a_key_or_of_the_nearest_above(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, GOOD, "rate=0.1")
    assert loaded.where("data.source.events") == f"{tmp_path}/c.yaml:11: data.source.events"
    assert loaded.where("data.source.items") == f"{tmp_path}/c.yaml:9: data.source.items"
    assert loaded.where("rate") == "--set rate"


CASES = {
    "unknown key": (
        GOOD.replace("events:", "evnts:"),
        [
            "c.yaml:9: data.source.events: the key is missing; expected text; add `events: ...` (The event log)",
            "c.yaml:11: data.source.evnts: unknown key; did you mean `events`?",
        ],
    ),
    "unknown key, far from any": (
        GOOD + "zzz: 1\n",
        ["c.yaml:13: zzz: unknown key; expected one of columns, data, flag, more, rate; remove it"],
    ),
    "unknown kind": (
        GOOD.replace("kind: files", "kind: file"),
        [
            f"c.yaml:10: data.source.kind: 'file'; expected {SOURCES}; did you mean `files`?",
        ],
    ),
    "missing kind": (
        GOOD.replace("    kind: files\n", ""),
        [
            f"c.yaml:9: data.source.kind: the key is missing; expected {SOURCES}; add `kind: ...`",
        ],
    ),
    "wrong literal": (
        GOOD.replace("timestamp: time", "timestamp_unit: mss"),
        ["c.yaml:4: columns.timestamp_unit: \"mss\"; expected 's', 'ms' or 'us'; did you mean `ms`?"],
    ),
    "number for text": (
        GOOD.replace("user: user", "user: 12"),
        ['c.yaml:2: columns.user: 12; expected text; for text write "12", in quotes'],
    ),
    "text for number": (
        GOOD + "rate: '0.5'\n",
        ['c.yaml:13: rate: "0.5"; expected a number; leave out the quotes'],
    ),
    "yes for true": (GOOD + "flag: yes\n", ['c.yaml:13: flag: "yes"; expected true or false; did you mean `true`?']),
    "1 for true": (GOOD + "flag: 1\n", ["c.yaml:13: flag: 1; expected true or false"]),
    "not finite": (GOOD + "rate: .nan\n", ["c.yaml:13: rate: NaN; expected a finite number"]),
    "out of range": (GOOD + "  seed: -1\n", ["c.yaml:13: data.seed: -1; expected greater than or equal to 0"]),
    "null": (
        GOOD.replace("events: ratings.parquet", "events:"),
        ["c.yaml:11: data.source.events: null; expected text"],
    ),
    "text for mapping": (GOOD + "  engine: duckdb\n", ['c.yaml:13: data.engine: "duckdb"; expected a mapping']),
    "mapping for text": (
        GOOD.replace("item: item", "item: {name: item}"),
        ["c.yaml:3: columns.item: a mapping (name); expected text"],
    ),
    "list for mapping": (
        GOOD.replace("{kind: sequence, of: movie}", "[1]"),
        ["c.yaml:7: columns.features.seen: a list of 1; expected a mapping"],
    ),
    "members of a plain union give one problem": (
        GOOD.replace("at_least: 4", "one_of: [1, 2.5]"),
        ['c.yaml:12: data.positives.one_of.1: 2.5; expected text or an integer; for text write "2.5", in quotes'],
    ),
    "a rule of the class": (
        GOOD.replace(", at_least: 4", ""),
        ["c.yaml:12: data.positives: a rule needs at_least, at_most or one_of"],
    ),
    "a key named like its union's tag": (
        GOOD + "more: {kind: files, files: [a, 3]}\n",
        ['c.yaml:13: more.files.1: 3; expected text; for text write "3", in quotes'],
    ),
    "an unknown key named like its union's tag": (
        GOOD + "more:\n  kind: other\n  other: 1\n",
        ["c.yaml:15: more.other: unknown key; expected one of kind; remove it"],
    ),
    "an empty file": (
        "",
        [
            "c.yaml:1: columns: the key is missing; expected a mapping; add `columns: ...`",
            "c.yaml:1: data: the key is missing; expected a mapping; add `data: ...`",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_messages(tmp_path: Path, case: str) -> None:
    text, expected = CASES[case]
    assert messages(tmp_path, text) == expected


def test_all_mistakes_come_at_once_in_the_files_order(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("rate: high\n\ndata:\n  seed: x\n")
    text = "include: base.yaml\nflag: 2\n" + GOOD.replace("of: movie", "of: 3")
    assert [m.partition(";")[0] for m in messages(tmp_path, text, "data.rows_per_group=0", "zzz.y=3")] == [
        "c.yaml:2: flag: 2",
        "c.yaml:9: columns.features.seen.of: 3",
        'base.yaml:1: rate: "high"',
        'base.yaml:4: data.seed: "x"',
        "--set data.rows_per_group: 0",
        "--set zzz.y: zzz: unknown key",
    ]


def test_unions_whose_usual_tag_is_left_out_or_has_another_name(tmp_path: Path) -> None:
    text = """\
tables:
  a: {dim: "4"}
  b: {dims: 4}
  c: {method: hashd, dim: 4}
  d: {method: hashed, dim: 4, rows: 0}
features:
  x: {table: a, pooling: men}
"""
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "c.yaml", EmbeddingsConfig)
    found = [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems]
    assert found[0] == 'c.yaml:2: tables.a.dim: "4"; expected an integer; leave out the quotes'
    assert found[1].startswith("c.yaml:3: tables.b.dim: the key is missing; expected an integer; add `dim: ...`")
    assert found[2:] == [
        "c.yaml:3: tables.b.dims: unknown key; did you mean `dim`?",
        "c.yaml:4: tables.c.method: 'hashd'; expected 'dnis', 'full', 'hashed', 'mgqe', 'mixed_dim', 'multiplexed', "
        "'optembed' or 'vector'; did you mean `hashed`?",
        "c.yaml:5: tables.d.rows: 0; expected greater than 0",
        "c.yaml:7: features.x.pooling: \"men\"; expected 'none', 'mean', 'sum' or 'sqrtn'; did you mean `mean`?",
    ]


def test_rules_over_several_parts_name_their_own_keys(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data:\n  source:\n    kind: files\n    events: a\nmore: {a: 1}\n")
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "c.yaml", Strange)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems] == [
        "c.yaml:1: data.negatives: rule 0",
        "c.yaml:3: data.source.kind: rule 1",
        "c.yaml:5: more.a: rule 2; rule 3",
    ]


def test_overrides_count_as_the_place(tmp_path: Path) -> None:
    assert messages(tmp_path, GOOD, "data.split={kind: temporal, valid: 2}") == [
        "--set data.split: data.split.valid: 2; expected less than 1"
    ]


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    one = digest(load_text(tmp_path, GOOD).config)
    reordered = "data:" + GOOD.split("data:")[1] + "rate: 5e-1\n" + GOOD.split("data:")[0]
    assert digest(load_text(tmp_path, reordered).config) == one
    assert digest(load_text(tmp_path, GOOD, "data.seed=12").config) != digest(
        load_text(tmp_path, GOOD, "data.seed=21").config
    )
    assert digest(load_text(tmp_path, GOOD, "columns.user=usér").config) != one


def test_the_digest_is_the_same_in_every_process() -> None:
    code = (
        "from recsys.config.digest import digest; from recsys.data.config import *;"
        "print(digest(DataConfig(source=FilesSource(kind='files', events='é'))))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == digest(DataConfig(source=FilesSource(kind="files", events="é")))


def test_the_digest_is_sha256_of_compact_sorted_json() -> None:
    # printf '{"kind":"files","files":["b","a"]}' with its keys sorted | sha256sum
    import hashlib

    expected = hashlib.sha256(b'{"files":["b","a"],"kind":"files"}').hexdigest()
    assert digest(Files(kind="files", files=("b", "a"))) == expected


def test_a_dumped_config_loads_to_the_same(tmp_path: Path) -> None:
    config = load_text(tmp_path, GOOD).config
    again = load_text(tmp_path, dialect.dump(config.model_dump(mode="json"))).config
    assert again == config
    assert digest(again) == digest(config)


def test_json_schema_describes_every_key_that_has_a_docstring() -> None:
    schema = json_schema(Composed)
    rows = schema["$defs"]["DataConfig"]["properties"]["rows_per_group"]
    assert rows["description"] == "Rows in a Parquet row group: the unit that the reader shuffles."
    assert rows["exclusiveMinimum"] == 0
    assert schema["$defs"]["FilesSource"]["additionalProperties"] is False
    assert schema["$defs"]["DataConfig"]["properties"]["source"]["discriminator"]["propertyName"] == "kind"
    assert set(schema["properties"]) == {"include", *Composed.model_fields}
