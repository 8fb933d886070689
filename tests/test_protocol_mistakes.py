"""Mistakes with sampled negatives and least histories, each tried on the command line as in `test_mistakes`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.test_mistakes import NO_HISTORY, NO_TIME, Mistake, all_of, answer, check, data, shop, snapshot, write

__all__ = ["shop"]  # the fixture

DRAWN = "--set 'data.sampled_negatives={per_positive: 1}'"
COLD = "--set 'data.split={kind: cold_items, valid: 0.2, test: 0.2}'"
RANDOM = "--set 'data.split={kind: random, valid: 0.2, test: 0.2}'"
EVERYTHING = "user,item,time,rating\n" + "".join(f"u{u},i{n},{n},5\n" for u in range(3) for n in range(12 - (u == 2)))

MISTAKES = [
    check("negatives of both sorts", lambda folder: None,
          ("--set data.sampled_negatives: ", "data.negatives says already which", "remove one of the two"),
          more=f"{DRAWN} --set 'data.negatives={{column: rating, at_most: 2}}'"),
    check("negatives of held-out items", lambda folder: None,
          ("--set data.sampled_negatives: ", "cold_items holds items out", "another kind of split"),
          more=f"{DRAWN} {COLD}"),
    check("none for each positive", lambda folder: None,
          ("--set data.sampled_negatives.per_positive: ", "0", "greater than 0"),
          more="--set data.sampled_negatives.per_positive=0"),
    check("unknown distribution", lambda folder: None,
          ("--set data.sampled_negatives.distribution: ", '"zipf"', "'uniform' or 'popularity'"),
          more="--set data.sampled_negatives.distribution=zipf"),
    check("ranker without negatives of any sort", lambda folder: None,
          ("c.yaml:2: data.negatives: ", "a ranker learns from negatives too", "data.sampled_negatives"),
          more="--set 'model={kind: ranker}'"),
    check("history that is less than none", lambda folder: None,
          ("--set data.min_history: ", "-1", "greater than or equal to 0"), more="--set data.min_history=-1"),
    check("history without times", all_of(NO_TIME, NO_HISTORY),
          ("--set data.min_history: ", "schema.timestamp"), more=f"--set data.min_history=1 {RANDOM}"),
    data("drawn negatives and propensities", lambda folder: None,
         ("--set data.sampled_negatives: ", "schema.propensity says", "remove one of the two"),
         more=f"{DRAWN} --set schema.propensity=rating --set 'model={{kind: ranker}}'"),
    data("a user with all items", write("log.csv", EVERYTHING),
         ("data.sampled_negatives: user 'u", "leaves 0 items to draw from", "at least 1", "drop users who have nearly"),
         more=DRAWN),
    data("more negatives than items", lambda folder: None,
         ("data.sampled_negatives: user 'u", "items to draw from; expected at least 11", "lower per_positive"),
         more="--set data.sampled_negatives.per_positive=11"),
    data("a history that nobody has", lambda folder: None,
         ("data.min_history: 6, and in the train part of the leave_last_out split", "lower it"),
         ("data.min_history: 6, and in the valid part",), ("data.min_history: 6, and in the test part",),
         more="--set data.min_history=6"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_cure_and_leaves_nothing(
    mistake: Mistake, shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mistake.broken(shop)
    (shop / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shop / "temporary"))
    before = snapshot(shop)
    code, lines = answer(mistake.command, capfd)
    assert code == 1, lines
    assert len(lines) == len(mistake.lines), lines
    for found, (place, *parts) in zip(lines, mistake.lines, strict=True):
        assert found.startswith(place), found
        assert all(part in found for part in parts), found
    assert snapshot(shop) == before
