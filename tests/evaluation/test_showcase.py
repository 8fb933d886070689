"""What a few users are shown: theirs, in order, marked by what they went on to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.data.prepared import Prepared
from recsys.evaluation.showcase import LIKED, SHOWCASE, SHOWN, USERS, Showcase, recommended, scored_examples
from recsys.ragged import Ragged
from tests.trained import Trained


@pytest.fixture
def prepared(trained_run: Trained) -> Prepared:
    return Prepared(trained_run.run / "prepared")


@dataclass(frozen=True)
class Backwards:
    """Recommends the last items of the catalogue to everybody."""

    users: int
    items: int

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        found = [[n for n in range(self.items - 1, -1, -1) if n not in exclude[row]][:k] for row in range(len(rows))]
        return np.array(found, np.int32)


def test_recommendations_are_named_and_marked(prepared: Prepared) -> None:
    held_out = prepared.held_out("test")
    found = recommended(Backwards(len(held_out.user_index), prepared.info.counts.items), held_out, prepared, "test", 50)
    assert len(found.users) == USERS
    names = prepared.users["user"].to_pylist()
    items, titles = (prepared.items[name].to_pylist() for name in ("item", "title"))
    events = prepared.events
    for user in found.users:
        index = names.index(user.user)
        own = slice(prepared.event_start[index], prepared.event_start[index + 1])
        before = events.item_index[own][events.stage[own] < 2]
        assert [each.item for each in user.liked] == [items[n] for n in before[::-1][:LIKED]], "the newest first"
        assert len(user.shown) == SHOWN
        expected = [n for n in range(len(items) - 1, -1, -1) if n not in before][:SHOWN]
        assert [each.item for each in user.shown] == [items[n] for n in expected]
        assert [each.title for each in user.shown] == [titles[n] for n in expected]
        target = {items[n] for n in events.item_index[own][events.stage[own] == 2]} - {items[n] for n in before}
        assert {each.item for each in user.wanted} == target
        assert {each.item for each in user.shown if each.wanted} == target & {each.item for each in user.shown}


def test_no_more_is_shown_than_was_asked_for(prepared: Prepared) -> None:
    held_out = prepared.held_out("test")
    found = recommended(Backwards(len(held_out.user_index), prepared.info.counts.items), held_out, prepared, "test", 5)
    assert {len(user.shown) for user in found.users} == {5}


def test_scored_examples_stand_by_their_probability(prepared: Prepared) -> None:
    table = prepared.examples("valid", ["user_index", "item_index", "label"])
    probabilities = np.random.default_rng(0).random(len(table))
    found = scored_examples(probabilities, prepared, "valid")
    assert found is not None
    names, items = prepared.users["user"].to_pylist(), prepared.items["item"].to_pylist()
    columns = (table[name].to_pylist() for name in ("user_index", "item_index", "label"))
    known = {
        (names[user], items[item]): (score, label == 1)
        for user, item, label, score in zip(*columns, probabilities, strict=True)
    }
    for user in found.users:
        assert [each.score for each in user.shown] == sorted((each.score for each in user.shown), reverse=True)
        for each in user.shown:
            assert (each.score, each.wanted) == known[user.user, each.item]


def test_a_run_stores_what_its_model_shows(trained_run: Trained, prepared: Prepared) -> None:
    found = Showcase.model_validate_json((trained_run.run / SHOWCASE).read_bytes())
    assert (found.part, len(found.users)) == ("test", USERS)
    for user in found.users:
        index = prepared.users["user"].to_pylist().index(user.user)
        seen = prepared.seen_before("test").take(np.array([index]))[0]
        assert not {prepared.items["item"][int(n)].as_py() for n in seen} & {each.item for each in user.shown}
