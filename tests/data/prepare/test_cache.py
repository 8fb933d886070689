from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.cache import cache_dir
from recsys.data.config import DataConfig
from recsys.data.prepare import prepare, prepared_digest
from recsys.data.source import SourceFiles
from recsys.errors import DataError
from recsys.schema.config import SchemaConfig


@pytest.fixture
def small(line, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(line), path)
    schema = SchemaConfig(user="user", item="item", timestamp="time", features={})
    return "small", config(), schema, SourceFiles((path,))


def config(**data):
    return DataConfig.model_validate({"source": {"kind": "files", "events": "log.parquet"}, **data})


def test_a_complete_folder_is_returned_at_once(small):
    folder = prepare(*small)
    assert folder == cache_dir() / "prepared" / prepared_digest(*small[1:])[:16]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert prepare(*small) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_incomplete_folder_is_made_again(small):
    folder = prepare(*small)
    (folder / "dataset.json").unlink()
    (folder / "stray").touch()
    assert prepare(*small) == folder
    assert (folder / "dataset.json").exists()
    assert not (folder / "stray").exists()


def test_what_decides_the_digest(small, tmp_path, line):
    _, data, schema, files = small
    digest = prepared_digest(data, schema, files)
    moved = tmp_path / "elsewhere.parquet"
    shutil.copy(files.events[0], moved)
    assert prepared_digest(data, schema, SourceFiles((moved,))) == digest
    same = config(engine={"kind": "duckdb", "memory_limit_gib": 1.0}, source={"kind": "files", "events": "x"})
    assert prepared_digest(same, schema, files) == digest
    assert prepared_digest(config(engine={"kind": "spark"}), schema, files) == digest

    pq.write_table(pa.table({**line, "time": list(range(1, 11))}), moved)
    others = [
        prepared_digest(config(seed=1), schema, files),
        prepared_digest(config(rows_per_group=7), schema, files),
        prepared_digest(config(split={"kind": "leave_last_out"}), schema, files),
        prepared_digest(data, schema.model_copy(update={"timestamp_unit": "ms"}), files),
        prepared_digest(data, schema, SourceFiles((moved,))),
        prepared_digest(data, schema, SourceFiles(files.events, items=files.events)),
        prepared_digest(data, schema, SourceFiles(files.events, users=files.events)),
    ]
    assert len({digest, *others}) == 8


def test_temporaries_of_dead_processes_are_removed(small):
    folder = prepare(*small)
    shutil.rmtree(folder)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = os.uname().nodename
    stale = folder.parent / f".{folder.name}.draft-{host}-{int(dead.stdout)}-abc"
    alive = folder.parent / f".{folder.name}.draft-{host}-{os.getppid()}-abc"
    elsewhere = folder.parent / f".{folder.name}.draft-another.host-{int(dead.stdout)}-abc"
    for path in (stale, alive, elsewhere):
        path.mkdir()
    prepare(*small)
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, alive.name, elsewhere.name])


def test_a_folder_that_holds_something_else_is_left_alone(small, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert prepare(*small, out) == out
    assert prepare(*small, out) == out
    name, _, schema, files = small
    with pytest.raises(DataError, match=r"out: holds something else .*; remove it, or name another"):
        prepare(name, config(seed=5), schema, files, out)
    assert prepare(*small, out) == out


def test_no_tensorflow_for_a_schema_without_hashes(small, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from recsys.data.config import DataConfig; from recsys.schema.config import SchemaConfig\n"
        "from recsys.data.prepare import prepare; from recsys.data.source import SourceFiles\n"
        "prepare('s', DataConfig.model_validate({'source': {'kind': 'files', 'events': 'x'}}),\n"
        "  SchemaConfig.model_validate({'user': 'user', 'item': 'item', 'timestamp': 'time', 'features':\n"
        "    {'iid': {'kind': 'categorical', 'role': 'item', 'column': 'item'}}}), SourceFiles((Path(sys.argv[1]),)))\n"
        "assert 'tensorflow' not in sys.modules and 'pyspark' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(small[3].events[0])], check=True)
