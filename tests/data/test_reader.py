"""Batches: which rows, in which order, from where on, and whether a row's features are its own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data import reader
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples, RowGroups, Shard
from recsys.errors import DataError
from tests.worlds import write_world

ROWS = 203


def renumber(folder: Path, group: int, files: int, rows: int = ROWS) -> Path:
    """Cuts the train part into files and row groups of these sizes; each row's weight is its number."""
    table = pq.read_table(folder / "train").slice(0, rows)
    table = table.set_column(table.schema.get_field_index("weight"), "weight", pa.array(np.arange(rows), pa.float32()))
    for path in (folder / "train").iterdir():
        path.unlink()
    cuts = np.linspace(0, rows, files + 1).astype(int)
    for n, (low, high) in enumerate(itertools.pairwise(cuts)):
        pq.write_table(table.slice(low, high - low), folder / "train" / f"part-{n:05d}.parquet", row_group_size=group)
    return folder


@pytest.fixture(scope="module", params=[(5, 3), (64, 1), (1_000, 2)], ids=["many pools", "one pool", "group a file"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    group, files = request.param
    return Prepared(renumber(write_world(tmp_path_factory.mktemp("worlds") / "world"), group, files))


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """41 row groups: five full pools and one more group."""
    prepared = Prepared(renumber(write_world(tmp_path_factory.mktemp("worlds") / "pools"), 5, 1))
    assert len(RowGroups(prepared.path / "train")._groups) == 5 * reader.POOL + 1
    return prepared


def label(folder: Path, labels: NDArray[np.bool_]) -> Path:
    """Gives the rows of the train part these labels, by their numbers."""
    for path in (folder / "train").iterdir():
        file = pq.ParquetFile(path)
        with pq.ParquetWriter(path.with_suffix(".new"), file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                own = labels[table["weight"].to_numpy().astype(int)].astype(np.float32)
                at = table.schema.get_field_index("label")
                writer.write_table(table.set_column(at, table.schema.field(at), pa.array(own)))
        path.with_suffix(".new").replace(path)
    return folder


def without_negatives(folder: Path) -> Path:
    """Removes the rows of label 0 from each row group of the train part, and row groups that have no others."""
    for path in (folder / "train").iterdir():
        file = pq.ParquetFile(path)
        with pq.ParquetWriter(path.with_suffix(".new"), file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(table.filter(pa.compute.equal(table["label"], 1.0)))
        path.with_suffix(".new").replace(path)
    return folder


LABELS = np.random.default_rng(5).random(ROWS) < 0.6
LABELS[:13] = LABELS[60:120] = False  # whole row groups and a whole pool, where groups have 5 rows


@pytest.fixture(scope="module", params=[(5, 3), (64, 1), (1_000, 2)], ids=["many pools", "one pool", "group a file"])
def labelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The world with negatives in its train part."""
    group, files = request.param
    folder = tmp_path_factory.mktemp("worlds") / "labelled"
    return Prepared(label(renumber(write_world(folder), group, files), LABELS))


def numbers(examples: Examples, epoch: int = 0, step: int = 0, **how: Any) -> list[list[int]]:
    """The row numbers of each batch."""
    return [batch["weight"].numpy().astype(int).tolist() for batch in examples.batches(epoch, step, **how)]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_without_a_seed_the_order_is_that_of_the_files(world: Prepared) -> None:
    examples = Examples(world, "train", 8, None)
    batches = numbers(examples, epoch=3)
    assert flat(batches) == list(range(200))
    assert {len(batch) for batch in batches} == {8}
    assert examples.steps_per_epoch == len(batches) == 25


def test_a_shuffled_epoch_has_every_row_once_but_for_the_remainder(world: Prepared) -> None:
    examples = Examples(world, "train", 8, 7)
    for epoch in (0, 1):
        batches = numbers(examples, epoch)
        assert {len(batch) for batch in batches} == {8}
        rows = flat(batches)
        assert len(rows) == len(set(rows)) == 200
        assert rows != sorted(rows)
    assert sorted(flat(numbers(Examples(world, "train", 1, 7)))) == list(range(ROWS))


def test_the_order_depends_on_seed_and_epoch_alone(world: Prepared) -> None:
    orders = {
        (seed, epoch): tuple(flat(numbers(Examples(world, "train", 29, seed), epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    for (seed, epoch), order in orders.items():
        assert tuple(flat(numbers(Examples(Prepared(world.path), "train", 29, seed), epoch))) == order
        # Another batch size cuts the same order elsewhere.
        assert tuple(flat(numbers(Examples(world, "train", 7, seed), epoch))) == order[:203]


def test_rows_are_mixed_across_and_within_row_groups(pools: Prepared) -> None:
    groups = np.array(flat(numbers(Examples(pools, "train", 1, 0)))) // 5
    pool = 5 * reader.POOL
    assert len(set(groups[:pool])) == reader.POOL
    assert (np.diff(groups[:pool]) != 0).mean() > 0.5
    assert sorted(set(groups[:pool])) != list(range(reader.POOL))


def test_the_permutations_of_groups_and_of_rows_are_drawn_apart(tmp_path: Path) -> None:
    """8 groups of one row: if both came from one stream, the second permutation would repeat the first."""
    folder = renumber(write_world(tmp_path / "world"), 1, 1, rows=8)
    order = np.array(flat(numbers(Examples(Prepared(folder), "train", 1, 0))))
    once = np.random.default_rng([0, 0]).permutation(8)
    assert order.tolist() != once[once].tolist()


def test_the_order_is_the_same_in_another_process(pools: Prepared) -> None:
    code = """
import sys
from pathlib import Path
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples

for batch in Examples(Prepared(Path(sys.argv[1])), "train", 29, 5).batches(2):
    print(*batch["weight"].numpy().astype(int))
"""
    environment = os.environ | {"PYTHONHASHSEED": "99"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(pools.path)], env=environment, capture_output=True, text=True, check=True
    )
    there = [[int(row) for row in line.split()] for line in done.stdout.splitlines()]
    assert there == numbers(Examples(pools, "train", 29, 5), 2)


@settings(max_examples=15)
@given(data=st.data())
def test_seeking_gives_the_batches_that_follow(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    group, files = data.draw(st.integers(1, 70), "group"), data.draw(st.integers(1, 3), "files")
    batch = data.draw(st.integers(1, 60), "batch size")
    seed, epoch = data.draw(st.none() | st.integers(0, 2**32 - 1), "seed"), data.draw(st.integers(0, 9), "epoch")
    folder = write_world(tmp_path_factory.mktemp("worlds") / "world", users=20, per_user=12)
    examples = Examples(Prepared(renumber(folder, group, files, rows=150)), "train", batch, seed)
    step = data.draw(st.integers(0, examples.steps_per_epoch), "step")
    with patch.object(reader, "CHUNK", data.draw(st.sampled_from([1, 7, 64, 65_536]), "chunk")):
        undisturbed = numbers(examples, epoch)
        assert numbers(examples, epoch, step) == undisturbed[step:]
    assert len(undisturbed) == 150 // batch


@settings(max_examples=8)
@given(workers=st.sampled_from([2, 3, 4]), chunk=st.sampled_from([5, 64, 65_536]), step=st.integers(0, 8))
@pytest.mark.parametrize("seed", [None, 3])
def test_the_workers_slices_are_the_global_batch(
    pools: Prepared, seed: int | None, workers: int, chunk: int, step: int
) -> None:
    examples = Examples(pools, "train", 24, seed)
    whole = numbers(examples, 1, step)
    with patch.object(reader, "CHUNK", chunk):
        slices = [numbers(examples, 1, step, shard=Shard(n, workers)) for n in range(workers)]
    assert all(len(batch) == 24 // workers for batches in slices for batch in batches)
    assert [flat(list(parts)) for parts in zip(*slices, strict=True)] == whole


@pytest.mark.parametrize(("shard", "local"), [(Shard(), 6), (Shard(1, 2), 4), (Shard(2, 3), 8), (Shard(0, 4), 2)])
def test_local_batches_never_mix_global_ones(pools: Prepared, shard: Shard, local: int) -> None:
    examples = Examples(pools, "train", 24, 3)
    whole = numbers(examples)
    share = 24 // shard.count
    mine = [batch[shard.index * share : (shard.index + 1) * share] for batch in whole]
    expected = [rows[at : at + local] for rows in mine for at in range(0, share, local)]
    assert numbers(examples, shard=shard, local_batch=local) == expected


@pytest.mark.parametrize(("shard", "local"), [(Shard(0, 3), None), (Shard(), 6), (Shard(0, 2), 5)])
def test_what_cannot_be_shared_equally_is_refused(pools: Prepared, shard: Shard, local: int | None) -> None:
    with pytest.raises(ValueError, match=r"8 rows in . slices"):
        Examples(pools, "train", 8, 0).batches(0, shard=shard, local_batch=local)


@pytest.mark.parametrize("seed", [None, 4])
def test_every_row_carries_its_own_features(world: Prepared, seed: int | None) -> None:
    stored = pq.read_table(world.path / "train")
    events = pq.read_table(world.path / "events").to_pydict()
    user, stop, time, device = (stored[n].to_pylist() for n in ("user_index", "history_stop", "time", "device"))
    for batch in Examples(world, "train", 50, seed).batches(0):
        assert set(batch) == {"query", "item", "user_index", "item_index", "label", "weight"}
        assert set(batch["query"]) == {"user_id", "history", "history.age", "device"}
        assert set(batch["item"]) == {"movie_id", "genres", "price"}
        item = batch["item_index"].numpy()
        for place, row in enumerate(batch["weight"].numpy().astype(int)):
            values = {name: value[place].numpy().tolist() for name, value in batch["query"].items()}
            assert batch["user_index"][place] == user[row]
            assert item[place] == stored["item_index"][int(row)].as_py()
            assert values["user_id"] == user[row] + 2
            assert values["device"] == device[row]
            seen = range(max(12 * user[row], stop[row] - 4), stop[row])
            padding = [0] * (4 - len(seen))
            assert values["history"] == [events["item_index"][n] + 2 for n in seen] + padding
            assert values["history.age"] == [time[row] - events["time"][n] for n in seen] + padding
        np.testing.assert_array_equal(batch["item"]["movie_id"], item + 2)
        np.testing.assert_array_equal(batch["item"]["price"], item.astype(np.float32))
        genres = [[2 + n % 5, 2 + n % 3, 0] for n in item]
        np.testing.assert_array_equal(batch["item"]["genres"], genres)


def test_types_and_shapes_are_those_of_the_contract(pools: Prepared) -> None:
    dataset = Examples(pools, "train", 8, 0).batches(0)
    spec = dataset.element_spec
    found = {
        name: (s.dtype.name, s.shape[1:].as_list()) for part in ("query", "item") for name, s in spec[part].items()
    }
    assert found == {
        "user_id": ("int32", []),
        "history": ("int32", [4]),
        "history.age": ("float32", [4]),
        "device": ("int32", []),
        "movie_id": ("int32", []),
        "genres": ("int32", [3]),
        "price": ("float32", []),
    }
    own = {name: spec[name].dtype.name for name in ("user_index", "item_index", "label", "weight")}
    assert own == {"user_index": "int32", "item_index": "int32", "label": "float32", "weight": "float32"}


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("batch_size", [1, 50, 203])
def test_whole_gives_each_row_once_in_file_order(pools: Prepared, seed: int | None, batch_size: int) -> None:
    batches = list(Examples(pools, "train", batch_size, seed).whole(64))
    assert [len(batch["weight"]) for batch in batches] == [64, 64, 64, 11]
    assert flat([batch["weight"].numpy().astype(int).tolist() for batch in batches]) == list(range(ROWS))


@pytest.mark.parametrize("seed", [None, 3])
def test_a_sample_is_the_first_rows(pools: Prepared, seed: int | None) -> None:
    assert Examples(pools, "train", 8, seed).sample(3)["weight"].tolist() == [0, 1, 2]


def test_stored_batches_are_those_of_epoch_0(tmp_path: Path) -> None:
    folder = renumber(write_world(tmp_path / "world"), 16, 1)
    examples = Examples(Prepared(folder), "train", 40, 3)
    for _ in range(2):  # made, then found
        stored = tf.data.Dataset.load(str(examples.store()))
        assert [batch["weight"].numpy().astype(int).tolist() for batch in stored] == numbers(examples)
    assert [path.name for path in (folder / "stored").iterdir()] == ["train-40-3"]


def test_a_part_smaller_than_a_batch_is_an_error(pools: Prepared) -> None:
    assert Examples(pools, "train", ROWS, 0).steps_per_epoch == 1
    with pytest.raises(
        DataError, match=r"train: 203 rows; expected at least one batch of 204; lower training.batch_size"
    ):
        Examples(pools, "train", ROWS + 1, 0)


def test_an_empty_part_is_an_error(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world")
    (folder / "valid" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match="valid: 0 rows"):
        Examples(Prepared(folder), "valid", 1, None)


def positives(prepared: Prepared, batch_size: int, seed: int | None) -> Examples:
    return Examples(prepared, "train", batch_size, seed, positives_only=True)


@pytest.mark.parametrize("seed", [None, 7])
def test_an_epoch_of_positives_has_each_of_them_once_and_no_negative(labelled: Prepared, seed: int | None) -> None:
    positive = np.flatnonzero(LABELS).tolist()
    rows = flat(numbers(positives(labelled, 1, seed), 2))
    assert sorted(rows) == positive
    assert (rows == positive) == (seed is None)
    examples = positives(labelled, 8, seed)
    batches = numbers(examples, 2)
    assert examples.steps_per_epoch == len(batches) == len(positive) // 8
    assert flat(batches) == rows[: 8 * len(batches)]
    assert set(np.concatenate([batch["label"] for batch in examples.batches(0)])) == {1.0}
    assert len(flat(numbers(Examples(labelled, "train", 1, seed)))) == ROWS  # unless they are asked for


@pytest.mark.parametrize("seed", [None, 7])
def test_positives_alone_are_the_batches_of_a_world_without_negatives(
    labelled: Prepared, tmp_path: Path, seed: int | None
) -> None:
    """Row group by row group: what the negatives said, and where they stood, leaves no trace."""
    folder = tmp_path / "cleaned"
    shutil.copytree(labelled.path, folder)
    cleaned = Prepared(without_negatives(folder))
    for epoch in (0, 1):
        ours, theirs = positives(labelled, 8, seed).batches(epoch), Examples(cleaned, "train", 8, seed).batches(epoch)
        pairs = list(zip(ours, theirs, strict=True))
        assert len(pairs) == LABELS.sum() // 8
        for one, other in pairs:
            tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_where_all_are_positive_nothing_changes(world: Prepared) -> None:
    assert numbers(positives(world, 8, 7), 1) == numbers(Examples(world, "train", 8, 7), 1)


@settings(max_examples=5)
@given(data=st.data())
def test_seeking_among_positives_gives_the_batches_that_follow(labelled: Prepared, data: st.DataObject) -> None:
    examples = positives(
        labelled, data.draw(st.integers(1, 40), "batch"), data.draw(st.sampled_from([None, 3]), "seed")
    )
    step = data.draw(st.integers(0, examples.steps_per_epoch), "step")
    with patch.object(reader, "CHUNK", data.draw(st.sampled_from([1, 7, 65_536]), "chunk")):
        assert numbers(examples, 1, step) == numbers(examples, 1)[step:]


@pytest.mark.parametrize(("workers", "chunk", "step"), [(2, 5, 0), (3, 65_536, 1), (4, 7, 3)])
def test_the_workers_share_each_batch_of_positives(labelled: Prepared, workers: int, chunk: int, step: int) -> None:
    examples = positives(labelled, 12, 3)
    whole = numbers(examples, 1, step)
    with patch.object(reader, "CHUNK", chunk):
        slices = [numbers(examples, 1, step, shard=Shard(n, workers)) for n in range(workers)]
    assert all(len(batch) == 12 // workers for batches in slices for batch in batches)
    assert [flat(list(parts)) for parts in zip(*slices, strict=True)] == whole


def test_scoring_reads_the_negatives_too_and_a_sample_is_positive(labelled: Prepared) -> None:
    """Though the first row groups hold no positive."""
    examples = positives(labelled, 8, 3)
    whole = [batch["weight"].numpy().astype(int).tolist() for batch in examples.whole(64)]
    assert flat(whole) == list(range(ROWS))
    sample = examples.sample()
    assert sample["label"].tolist() == [1.0] * len(sample["label"])
    assert sample["weight"][0] == np.flatnonzero(LABELS)[0]


def test_stored_positives_have_a_folder_of_their_own(tmp_path: Path) -> None:
    prepared = Prepared(label(renumber(write_world(tmp_path / "world"), 16, 1), LABELS))
    every, some = Examples(prepared, "train", 40, 3), positives(prepared, 40, 3)
    assert every.store() != some.store()
    for examples in (every, some):
        stored = tf.data.Dataset.load(str(examples.store()))
        assert [batch["weight"].numpy().astype(int).tolist() for batch in stored] == numbers(examples)


def test_too_few_positives_are_an_error(labelled: Prepared) -> None:
    count = int(LABELS.sum())
    assert positives(labelled, count, 0).steps_per_epoch == 1
    with pytest.raises(DataError, match=f"train: {count} positive rows; expected at least one batch of {count + 1}"):
        positives(labelled, count + 1, 0)
