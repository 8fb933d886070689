"""The last stage, computed by hand: pins, caps, diversity, exploration, and all of them together."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError

from recsys.config.load import load
from recsys.errors import ConfigError
from recsys.retrieval.allowed import Allowed
from serving.reranking import Candidates, Reranked, Rules, RulesConfig
from tests.documented import blocks

NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]
ITEMS = pa.table(
    {
        "item": NAMES,
        "raw.genre": ["x", "x", "x", "y", "y", None, None, "z"],
        "raw.tags": [["n"], ["n", "o"], [], ["o"], ["n", "n"], None, ["p"], ["o"]],
        "raw.price": pa.array([1.0] * 8, pa.float32()),
        "raw.taste": pa.array([[0.0, 1.0]] * 8, pa.list_(pa.float32(), 2)),
    }
)
ANGLES = np.deg2rad([0, 10, 90, 5, 100, 180, 45, 60])
VECTORS = (np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * np.arange(1, 9)[:, None]).astype(np.float32)


def config(**rules: Any) -> RulesConfig:
    return RulesConfig.model_validate(rules)


def rerank(rules: dict[str, Any], k: int, named: str = "abcdefgh", request_id: str = "r", **options: Any) -> Reranked:
    """Of these candidates, whose scores fall by 1 from 10."""
    items = np.array([NAMES.index(name) for name in named], np.int32)
    scores = np.arange(10, 10 - len(items), -1, dtype=np.float32)
    candidates = Candidates(items, scores, VECTORS[items])
    return bound(json.dumps(rules)).rerank(candidates, k, request_id, **options)


@cache
def bound(rules: str) -> Rules:
    return Rules.of(RulesConfig.model_validate_json(rules), ITEMS, VECTORS)


def shown(rules: dict[str, Any], k: int, named: str = "abcdefgh", **options: Any) -> str:
    return "".join(NAMES[item] for item in rerank(rules, k, named, **options).items)


def test_without_rules_the_best_come_in_order() -> None:
    found = rerank({}, 3, "cab")
    assert found.items.tolist() == [2, 0, 1]
    assert found.scores.tolist() == [10, 9, 8]
    assert found.propensities.tolist() == [1, 1, 1]
    assert not found.pinned.any()
    assert not found.explored.any()
    assert shown({}, 5, "cab") == "cab"
    assert shown({}, 5, "") == ""


def test_banned_items_make_room() -> None:
    rules = {"banned": ["b", "nobody"]}
    assert shown(rules, 3) == "acd"
    assert bound(json.dumps(rules)).banned.tolist() == [1]
    assert bound(json.dumps(rules)).unknown == ("nobody",)


def test_a_pin_comes_though_it_was_not_retrieved() -> None:
    found = rerank({"pinned": [{"item": "h", "place": 2}]}, 3, "abc")
    assert found.items.tolist() == [0, 7, 1]
    assert_allclose(found.scores, [10, np.nan, 9])
    assert found.pinned.tolist() == [False, True, False]
    assert found.propensities.tolist() == [1, 1, 1]


def test_a_pin_that_was_retrieved_is_moved_and_keeps_its_score() -> None:
    found = rerank({"pinned": [{"item": "c", "place": 1}]}, 3)
    assert "".join(NAMES[item] for item in found.items) == "cab"
    assert found.scores.tolist() == [8, 10, 9]


def test_pins_beyond_a_short_list_come_last_in_their_order() -> None:
    rules = {"pinned": [{"item": "h", "place": 9}, {"item": "g", "place": 5}]}
    assert shown(rules, 9, "ab") == "abgh"
    assert shown(rules, 4, "abcde") == "abcd"  # neither place is in the list
    assert shown(rules, 5, "abcde") == "abcdg"


def test_who_must_not_see_a_pin_does_not() -> None:
    rules = {"pinned": [{"item": "h", "place": 1}]}
    assert shown(rules, 2, excluded=np.array([7])) == "ab"
    assert shown(rules, 2, "abc", allowed=Allowed.of([0, 1, 2], 8)) == "ab"
    assert shown(rules, 2, "abc", allowed=Allowed.of([0, 7], 8)) == "ha"
    assert shown(rules | {"banned": ["h"]}, 2) == "ab"
    deleted = ITEMS.append_column("deleted", pa.array([False] * 7 + [True]))
    found = Rules.of(config(**rules), deleted).rerank(Candidates(np.array([0, 1]), np.array([2.0, 1.0])), 2, "r")
    assert found.items.tolist() == [0, 1]


def test_caps_pass_over_what_is_full() -> None:
    """x is full after a and b; y after d; what has no genre is never held back."""
    assert shown({"caps": [{"column": "genre", "most": 2}]}, 4) == "abde"
    assert shown({"caps": [{"column": "genre", "most": 1}]}, 5) == "adfgh"


def test_an_item_counts_for_each_of_its_values() -> None:
    """a has n; b has n and o and must not come; d has o; e has n (twice, which is once); h has o."""
    assert shown({"caps": [{"column": "tags", "most": 1}]}, 8) == "acdfg"
    assert shown({"caps": [{"column": "tags", "most": 2}]}, 8) == "abcdfg"


def test_several_caps_hold_together() -> None:
    """Of genre x one, of tag o one: a, then d (y, o), f, g; h has o."""
    caps = [{"column": "genre", "most": 1}, {"column": "tags", "most": 1}]
    assert shown({"caps": caps}, 8) == "adfg"


def test_a_list_that_caps_leave_short_stays_short() -> None:
    assert shown({"caps": [{"column": "genre", "most": 1}]}, 5, "abcde") == "ad"


def test_pins_count_for_caps_and_come_whatever_these_say() -> None:
    caps = [{"column": "genre", "most": 1}]
    pinned = [{"item": "b", "place": 1}, {"item": "c", "place": 3}]
    assert shown({"caps": caps, "pinned": pinned}, 5) == "bdcfg"


def test_marginal_relevance_by_hand() -> None:
    """Scores 10, 9, 8, 7 become 1, 2/3, 1/3, 0; a, b, c, d stand at 0, 10, 90 and 5 degrees.

    With weight 1/2, after a: b 1/3 - cos(10)/2 = -0.159, c 1/6 - 0 = 0.167, d 0 - cos(5)/2 = -0.498. After c:
    b still -0.159 (its cosine to c is cos(80) = 0.174), d -0.498. So a, c, b, d.
    """
    assert shown({"diversity": {"weight": 0.5}}, 4, "abcd") == "acbd"
    assert shown({"diversity": {"weight": 0}}, 4, "abcd") == "abcd"
    # By cosines alone: a by its score's place; c at 90; then d (greatest cosine cos(5)) after b (cos(10)).
    assert shown({"diversity": {"weight": 1}}, 4, "abcd") == "acbd"
    # b: (1 - .1) * 2/3 - .1 * cos(10) = 0.502; c: .3 - 0 = 0.3
    assert shown({"diversity": {"weight": 0.1}}, 2, "abcd") == "ab"


def test_lengths_do_not_matter_for_diversity_and_scores_only_by_their_range() -> None:
    """Of equal scores all relevances are 0: what is least like a comes next, which is f at 180 degrees.

    Relevances 1, .8, ... 0, halved, after a: f 0 + .5, c .3 - 0, e .1 - cos(100)/2 = .19; after f: c .3, for it is at
    right angles to both; then b .4 - .49, d .2 - .50, and e .1 - cos(10)/2 = -.39, which stands beside c.
    """
    items = np.arange(6)
    rules = Rules.of(config(diversity={"weight": 0.5}), ITEMS, VECTORS)
    found = rules.rerank(Candidates(items, np.full(6, 3.0), VECTORS[:6]), 3, "r")
    assert found.items.tolist() == [0, 5, 2]
    for scores in (np.array([10.0, 9, 8, 7, 6, 5]), np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])):
        found = rules.rerank(Candidates(items, scores, VECTORS[:6]), 6, "r")
        assert found.items.tolist() == [0, 5, 2, 1, 3, 4]


def test_beyond_the_best_the_order_stands() -> None:
    """Of a and b only is the choice; c, though it is farther, comes in its turn."""
    assert shown({"diversity": {"weight": 1, "of": 2}}, 4, "abcd") == "abcd"


def test_an_item_is_held_against_pins_though_they_were_not_retrieved() -> None:
    """f stands at 180 degrees to a, e at 100: beside a pinned a, f comes first by cosines."""
    rules = {"diversity": {"weight": 1}, "pinned": [{"item": "a", "place": 3}]}
    assert shown(rules, 3, "ef") == "fea"
    assert shown({"diversity": {"weight": 1}}, 2, "ef") == "ef"


def test_caps_hold_under_diversity() -> None:
    """x once: a; c, which diversity would take, has x as well; then d, y."""
    rules = {"diversity": {"weight": 0.5}, "caps": [{"column": "genre", "most": 1}]}
    assert shown(rules, 4, "abcd") == "ad"


def propensities(rules: dict[str, Any], k: int, requests: int, named: str = "abcdefgh") -> None:
    """How often each item is shown at each place, and what the log says of it: the mean over all requests of
    1 / propensity, where the item is shown, is 1 for whatever can be shown.
    """
    counts, logged = np.zeros((k, 8)), np.full((k, 8), np.nan)
    for number in range(requests):
        found = rerank(rules, k, named, request_id=f"request {number}")
        at = (np.arange(len(found.items)), found.items)
        assert len(set(found.items.tolist())) == len(found.items)
        counts[at] += 1
        assert np.all(np.isnan(logged[at]) | (logged[at] == found.propensities))
        logged[at] = found.propensities
    there = ~np.isnan(logged)
    assert_allclose(np.where(there, logged, 0).sum(1), 1.0)  # at each place, over all that it can show
    error = np.sqrt(logged * (1 - logged) / requests)
    assert np.all(np.abs(counts / requests - logged)[there] <= 4.5 * error[there] + 1e-12)


def test_propensities_by_hand() -> None:
    """a, b, c are the list; the first place is kept; d, e, f, g, h are the pool of two places, each 0.5 / 5."""
    rules = {"exploration": {"share": 0.5, "after": 1}}
    seen = {}
    for number in range(120):
        found = rerank(rules, 3, request_id=str(number))
        for place, (item, chance, explored) in enumerate(
            zip(found.items.tolist(), found.propensities.tolist(), found.explored.tolist(), strict=True)
        ):
            assert explored == (item > 2)
            seen[place, NAMES[item]] = chance
    tenth = {(place, name): pytest.approx(0.1) for place in (1, 2) for name in "defgh"}
    assert seen == {(0, "a"): 1.0, (1, "b"): pytest.approx(0.5), (2, "c"): pytest.approx(0.5), **tenth}
    propensities(rules, 3, 400)


def test_propensities_of_a_pool_smaller_than_the_places() -> None:
    """One item for three places, each of which gets it in one of three cases: 0.6 / 3 each, and 0.8 to stay."""
    rules = {"exploration": {"share": 0.6}}
    found = [rerank(rules, 3, "abcd", request_id=str(number)) for number in range(60)]
    assert {round(p, 12) for each in found for p in each.propensities.tolist()} == {0.2, 0.8}
    assert max(int(each.explored.sum()) for each in found) == 1
    propensities(rules, 3, 400, "abcd")
    assert shown({"exploration": {"share": 1.0}}, 3, "abc") == "abc"  # nothing to explore


def test_exploration_breaks_no_cap_beside_the_list_and_each_other() -> None:
    """The list is a, b (both x and n: there is room for one more n); c is x, which is full; d, e are y, for which there
    is room for two; e has n. f, g, h are free.
    """
    rules = {"caps": [{"column": "genre", "most": 2}, {"column": "tags", "most": 3}], "exploration": {"share": 1.0}}
    drawn = set()
    for number in range(100):
        found = rerank(rules, 2, request_id=str(number))
        drawn |= set(found.items.tolist())
        assert found.propensities.tolist() == [pytest.approx(1 / 5)] * 2
    assert drawn == {3, 4, 5, 6, 7}
    # With room for one y beside the list, only the better of d and e can be drawn, so that both never are.
    rules["caps"] = [{"column": "genre", "most": 1}]
    drawn = {item for n in range(100) for item in rerank(rules, 1, "adefh", request_id=str(n)).items.tolist()}
    assert drawn == {3, 5, 7}


def test_pins_caps_bans_diversity_and_exploration_together() -> None:
    """h (60 degrees, tag o) is pinned to place 2, b is banned, a has been seen, and d has tag o, of which h is the one.

    Relevances of c to g are 1, .75, .5, .25, 0. Halved, and less half the cosine to h: c .5 - .433, e .25 - .383,
    f .125 + .25, g 0 - .483: f, then c. The pool of the last place is e and g.
    """
    rules = {
        "banned": ["b"],
        "pinned": [{"item": "h", "place": 2}],
        "caps": [{"column": "genre", "most": 2}, {"column": "tags", "most": 1}],
        "diversity": {"weight": 0.5},
        "exploration": {"share": 0.5, "after": 1},
    }
    seen = set()
    for number in range(120):
        found = rerank(rules, 3, "abcdefg", request_id=str(number), excluded=np.array([0]))
        assert found.items[:2].tolist() == [5, 7]
        assert found.pinned.tolist() == [False, True, False]
        assert found.propensities[:2].tolist() == [1, 1]
        seen.add((NAMES[found.items[2]], round(float(found.propensities[2]), 12), bool(found.explored[2])))
    assert seen == {("c", 0.5, False), ("e", 0.25, True), ("g", 0.25, True)}


def test_the_same_request_is_answered_alike_and_another_seed_otherwise() -> None:
    rules = {"exploration": {"share": 0.5}}
    again = [[shown(rules, 4, request_id=str(n)) for n in range(50)] for _ in range(2)]
    assert again[0] == again[1]
    assert [shown({"exploration": {"share": 0.5, "seed": 1}}, 4, request_id=str(n)) for n in range(50)] != again[0]
    assert shown(rules, 4, request_id="\ud800")  # any text is a request's id


@given(
    st.permutations("abcdefgh"), st.integers(1, 8), st.integers(1, 3), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0)
)
def test_caps_hold_whatever_is_drawn(named: list[str], k: int, most: int, share: float, request: int) -> None:
    caps = [{"column": "genre", "most": most}, {"column": "tags", "most": most}]
    found = rerank({"caps": caps, "exploration": {"share": share}}, k, "".join(named), request_id=str(request))
    assert len(set(found.items.tolist())) == len(found.items) <= k
    assert np.all((found.propensities > 0) & (found.propensities <= 1))
    for column in ("raw.genre", "raw.tags"):
        values = [set(np.atleast_1d(v)) for v in ITEMS[column].take(found.items).to_pylist() if v is not None]
        members = [value for each in values for value in each]
        assert all(members.count(value) <= most for value in members)


@pytest.mark.parametrize(
    ("cap", "message"),
    [
        ("gerne", "rules.caps.0.column: the items have no column 'gerne'; expected one of genre, item, price, tags"),
        ("price", "rules.caps.0.column: 'price' holds float; expected a column of categories"),
        ("taste", "rules.caps.0.column: 'taste' holds fixed_size_list"),
    ],
)
def test_columns_that_cannot_be_capped(cap: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules.of(config(caps=[{"column": cap, "most": 1}]), ITEMS)
    assert str(caught.value).startswith(message)
    assert "did you mean genre?" in str(caught.value) or cap != "gerne"


def test_diversity_needs_vectors() -> None:
    with pytest.raises(ConfigError, match=r"rules\.diversity: the bundle has no vectors of items"):
        Rules.of(config(diversity={"weight": 0.5}), ITEMS)
    assert Rules.of(config(diversity={"weight": 0.5}), ITEMS, VECTORS).needs_vectors
    assert not Rules.of(config(), ITEMS).needs_vectors


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        ({"pinned": [{"item": "a", "place": 0}]}, ("pinned", 0, "place")),
        ({"pinned": [{"item": "a", "place": 1}, {"item": "b", "place": 1}]}, ("pinned", "1", "place")),
        ({"pinned": [{"item": 7, "place": 1}, {"item": "7", "place": 2}]}, ("pinned", "1", "item")),
        ({"caps": [{"column": "g", "most": 1}, {"column": "g", "most": 2}]}, ("caps", "1", "column")),
        ({"caps": [{"column": "g", "most": 0}]}, ("caps", 0, "most")),
        ({"diversity": {"weight": 1.5}}, ("diversity", "weight")),
        ({"exploration": {"share": "0.1"}}, ("exploration", "share")),
        ({"ban": []}, ("ban",)),
    ],
)
def test_configs_that_are_refused(rules: dict[str, Any], where: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**rules)
    assert [error["loc"] for error in caught.value.errors()] == [where]


def test_the_yaml_of_the_page_is_sound(tmp_path: Path) -> None:
    (block,) = blocks((Path(__file__).parents[3] / "docs/how-to/rules.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "rules.yaml").write_text(block, encoding="utf-8")
    rules = load(tmp_path / "rules.yaml", RulesConfig).config
    assert rules.exploration is not None
    assert (len(rules.banned), rules.pinned[0].item, rules.caps[0].most, rules.exploration.after) == (2, "77", 3, 2)
