"""The catalogue's journal: what was kept is there again, whatever moment a crash chose."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ExportError, RequestError
from serving.pipeline.journal import Journal, JournalError


class Shelf:
    """A catalogue as the server's: only what has been there can be deleted."""

    def __init__(self, *items: str) -> None:
        self.known: dict[str, Any] = dict.fromkeys(items, "as exported")
        self.there = {*items}
        self.updates = 0
        self.fails: Exception | None = None

    def update(self, upserts: Sequence[Mapping[str, Any]], deletes: Sequence[str | int]) -> None:
        if isinstance(self.fails, RequestError):
            raise self.fails
        gone, rows = {str(item) for item in deletes}, {str(row["item"]): row for row in upserts}
        if gone - self.known.keys() - rows.keys():
            raise RequestError("delete", "no such item")
        self.known |= rows
        self.there = (self.there - gone) | rows.keys()
        self.updates += 1
        if self.fails is not None:
            raise self.fails

    @property
    def items(self) -> dict[str, Any]:
        return {item: self.known[item] for item in self.there}


def opened(folder: Path, version: int = 3) -> Journal:
    return Journal.open(folder / "journal", "my shop", version)


def replayed(folder: Path, *items: str, version: int = 3) -> dict[str, Any]:
    shelf, journal = Shelf(*items), opened(folder, version)
    journal.replay(shelf)
    journal.close()
    return shelf.items


def test_changes_are_there_again(tmp_path: Path) -> None:
    journal, shelf = opened(tmp_path), Shelf("a", "b")
    journal.update(shelf, [{"item": "c", "title": "Größe\n1"}, {"item": 4}], ["a"])
    journal.update(shelf, [{"item": "c", "price": 0.5}], [4])
    journal.update(shelf, [], [])
    assert shelf.items == {"b": "as exported", "c": {"item": "c", "price": 0.5}}
    # Not closed: the process is killed.
    assert replayed(tmp_path, "a", "b") == shelf.items
    assert replayed(tmp_path, "a", "b") == shelf.items


def test_replay_is_few_updates_and_counts_items(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for number in range(20):
        journal.append([{"item": "c", "n": number}], ["a"])
    journal.close()
    shelf, journal = Shelf("a", "b"), opened(tmp_path)
    assert journal.replay(shelf) == 2
    assert shelf.updates == 2
    assert shelf.items == {"b": "as exported", "c": {"item": "c", "n": 19}}
    assert journal.path.read_bytes().count(b"\n") == 2  # compacted
    assert opened(tmp_path / "other").replay(Shelf()) == 0


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), unique=True), st.sets(st.sampled_from("abcdef")))),
    st.integers(0, 5),
)
def test_any_changes_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[str], set[str]]], restart: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    shelf, journal = Shelf("a", "b", "c"), opened(folder)
    for number, (upserts, deletes) in enumerate(changes):
        rows = [{"item": item, "n": number} for item in upserts]
        journal.update(shelf, rows, sorted(deletes & (shelf.known.keys() | {*upserts})))
        if number == restart:
            journal.close()
            journal = opened(folder)
    journal.close()
    assert replayed(folder, "a", "b", "c") == shelf.items


def test_a_last_line_may_be_cut_at_any_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path)
    journal.append([{"item": "first", "title": "日本"}], ["a"])
    whole = journal.path.read_bytes()
    journal.append([{"item": "last"}], ["b"])
    both = journal.path.read_bytes()
    journal.close()
    before = {"b": "as exported", "first": {"item": "first", "title": "日本"}}
    after = {"first": before["first"], "last": {"item": "last"}}
    for length in range(len(whole), len(both) + 1):
        caplog.clear()
        journal.path.write_bytes(both[:length])
        kept = length >= len(both) - 1  # without its newline alone, the line is whole
        assert replayed(tmp_path, "a", "b") == (after if kept else before), length
        assert ("was cut off" in caplog.text) == (len(whole) < length < len(both) - 1)
        # What is appended after it is kept.
        journal = opened(tmp_path)
        journal.append([], ["first"])
        journal.close()
        assert "first" not in replayed(tmp_path, "a", "b")


def test_a_last_line_may_hold_anything_but_others_may_not(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for number in range(3):
        journal.append([{"item": f"{number}"}], [])
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1] + b"\0" * len(lines[2]))
    assert replayed(tmp_path).keys() == {"0", "1"}
    for at in range(len(lines[1]) - 1):
        bad = bytearray(lines[1])
        bad[at] ^= 1
        damaged = lines[0] + bytes(bad) + lines[2]
        journal.path.write_bytes(damaged)
        with pytest.raises(JournalError, match=r"my%20shop-3\.journal:2: is damaged; .*make its changes again"):
            opened(tmp_path)
        assert journal.path.read_bytes() == damaged  # nothing has been done to it


def test_the_format(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([{"item": "é"}], [7])
    (line,) = journal.path.read_bytes().splitlines()
    text = b'{"upsert":[{"item":"\\u00e9"}],"delete":[7]}'
    assert line == b"%08x %s" % (zlib.crc32(text), text)
    assert journal.path == tmp_path / "journal" / "my%20shop-3.journal"


def test_another_version_has_its_own_and_a_rollback_finds_it_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path)
    journal.append([{"item": "new"}], [])
    journal.close()
    with caplog.at_level(logging.INFO):
        assert replayed(tmp_path, "a", version=4) == {"a": "as exported"}
    assert "my%20shop-3.journal: changes of another bundle, not made to my shop 4" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert replayed(tmp_path, "a").keys() == {"a", "new"}
    assert not caplog.text  # the newer one has none


def test_a_change_that_cannot_be_made_is_not_kept(tmp_path: Path) -> None:
    journal, shelf = opened(tmp_path), Shelf("a")
    with pytest.raises(RequestError):
        journal.update(shelf, [], ["nobody"])
    shelf.fails = ExportError("index", "does not keep its promise")
    with pytest.raises(ExportError):
        journal.update(shelf, [{"item": "b"}], [])
    assert replayed(tmp_path, "a").keys() == {"a", "b"}


def test_a_bundle_that_the_journal_does_not_fit_is_told(tmp_path: Path) -> None:
    opened(tmp_path).append([], ["a"])
    with pytest.raises(JournalError, match=r"does not fit the bundle \(delete: no such item\).*remove"):
        replayed(tmp_path, "b")


def test_it_is_on_the_disk_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, synced = opened(tmp_path), list[bytes]()
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(journal.path.read_bytes()))
    journal.append([{"item": "a"}], [])
    assert synced == [journal.path.read_bytes()]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    journal.append([{"item": "a"}], [])
    before, write = journal.path.read_bytes(), os.write
    for broken in (lambda file, line: write(file, line[:10]), _full):
        monkeypatch.setattr(os, "write", broken)
        with pytest.raises(JournalError, match="make room"):
            journal.append([{"item": "b"}], [])
        assert journal.path.read_bytes() == before
    monkeypatch.undo()
    journal.append([{"item": "c"}], [])
    assert replayed(tmp_path).keys() == {"a", "c"}


def _full(file: int, line: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(json.dumps({}))
    with pytest.raises(JournalError, match="choose another folder"):
        opened(tmp_path)
