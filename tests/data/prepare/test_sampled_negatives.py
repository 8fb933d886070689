"""Sampled negatives: whose they are, how many, how often each item, and in which order they stand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import chi2

from recsys.data.prepare import negatives
from recsys.data.prepare.negatives import Outside, noise
from recsys.data.reader import RowGroups
from recsys.errors import DataError

PARTS = ("train", "valid", "test")
USERS, ITEMS = 60, 40
FEATURES = {
    "id": {"kind": "categorical", "role": "item", "column": "item"},
    "number": {"kind": "categorical", "role": "context"},
    "level": {"kind": "numeric", "role": "context"},
}
SCHEMA = {"weight": "weight"}


def drawn(per_positive=1, distribution="uniform"):
    return {"sampled_negatives": {"per_positive": per_positive, "distribution": distribution}}


@pytest.fixture(scope="module")
def log():
    """Repeats, ties in time, three items of which only the last event of a user tells, events that no rule keeps."""
    rng = np.random.default_rng(0)
    rows = 900
    popular = 1 / np.arange(1, ITEMS + 1)
    new = np.arange(rows) < 3
    return {
        "user": np.where(new, np.arange(rows), rng.integers(0, USERS, rows)),
        "item": np.where(new, 100 + np.arange(rows), rng.choice(ITEMS, rows, p=popular / popular.sum())),
        "time": np.where(new, 300, rng.integers(0, 200, rows)),
        "rating": np.where(new, 5, rng.integers(1, 6, rows)),
        "weight": rng.integers(1, 9, rows),
        "number": np.arange(rows),
        "level": rng.normal(size=rows),
    }


LIKED = {"positives": {"column": "rating", "at_least": 3}, "split": {"kind": "leave_last_out"}}


def by_event(result):
    """The rows of each event."""
    events = {}
    for part in PARTS:
        for row in result.examples(part):
            events.setdefault((part, row["user"], row["time"], row["weight"], row["level"]), []).append(row)
    return events


@pytest.mark.parametrize(("count", "distribution"), [(1, "uniform"), (3, "uniform"), (3, "popularity")])
def test_every_positive_has_its_own_outside_the_users_list(run, log, count, distribution):
    result = run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(count, distribution))
    plain = run(log, FEATURES, schema=SCHEMA, **LIKED)
    owned = {}
    for user, item, _ in result.events:
        owned.setdefault(user, set()).add(item)
    events = by_event(result)
    assert len(events) == sum(plain.info.counts.model_dump()[part] for part in PARTS)
    for (_, user, *_), rows in events.items():
        assert sorted(row["label"] for row in rows) == [0.0] * count + [1.0]
        items = [row["item"] for row in rows if not row["label"]]
        assert len(set(items)) == count
        assert not owned[user] & set(items)
        for name in ("number", "history_stop", "history"):
            assert all(row[name] == rows[0][name] for row in rows)
        if distribution == "popularity":
            assert all(result.items[item]["train_count"] for item in items)
    if distribution == "popularity":
        assert any(item["train_count"] == 0 for item in result.items.values()), "the log tests nothing of it"


def test_negatives_are_no_events(run, log):
    """Everything but the examples is as without them, and so are the positive examples."""
    plain, result = run(log, FEATURES, schema=SCHEMA, **LIKED), run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(2))
    for name in ("users", "items", "events/part-00000", "vocab/id", "vocab/number"):
        assert result.table(name).equals(plain.table(name)), name
    assert result.info.features == plain.info.features
    assert result.info.suspicions == plain.info.suspicions
    counts, expected = result.info.counts.model_dump(), plain.info.counts.model_dump()
    assert counts == expected | {part: 3 * expected[part] for part in PARTS}
    assert plain.info.sampled_negatives is None
    assert result.info.sampled_negatives.per_positive == 2
    for part in PARTS:
        rows, own = (r.table(f"{part}/part-00000") for r in (result, plain))
        keys = [(name, "ascending") for name in ("user_index", "item_index", "time", "level")]
        assert rows.filter(pc.equal(rows["label"], 1)).sort_by(keys).equals(own.sort_by(keys))
    folder = result.folder / "train"
    assert RowGroups(folder, positives_only=True).rows == expected["train"]


def test_neither_the_order_of_the_log_nor_row_groups_matter(run, log):
    once = run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(2))
    order = np.random.default_rng(1).permutation(len(log["user"]))
    shuffled = {name: column[order] for name, column in log.items()}
    again = run(shuffled, FEATURES, schema=SCHEMA, rows_per_group=7, **LIKED, **drawn(2))
    for part in PARTS:
        assert again.table(f"{part}/part-00000").equals(once.table(f"{part}/part-00000"))
    other = run(log, FEATURES, schema=SCHEMA, seed=1, **LIKED, **drawn(2))
    assert other.pairs("test") != once.pairs("test")


def test_draws_do_not_depend_on_other_users(run, log):
    items = {"item": np.arange(ITEMS)}
    few = {name: column[log["user"] < 9] for name, column in log.items()}
    whole, part = (run(rows, FEATURES, items=items, schema=SCHEMA, **LIKED, **drawn(2)) for rows in (log, few))
    pairs = Counter(pair for pair in whole.pairs("test") if int(pair[0]) < 9)
    assert pairs == Counter(part.pairs("test"))


def test_blocks_change_the_order_alone(run, log, monkeypatch):
    once = run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(2)).table("train/part-00000")
    monkeypatch.setattr(negatives, "BLOCK", 50)
    again = run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(2)).table("train/part-00000")
    assert not again.equals(once)
    keys = [(name, "ascending") for name in ("user_index", "item_index", "time", "level", "label")]
    assert again.sort_by(keys).equals(once.sort_by(keys))


def test_negatives_do_not_follow_their_positive(run, log):
    rows = run(log, FEATURES, schema=SCHEMA, **LIKED, **drawn(1)).table("train/part-00000").to_pandas()
    same = (rows.level.to_numpy()[1:] == rows.level.to_numpy()[:-1]).mean()
    assert same < 0.02
    label = rows.label.to_numpy()
    assert abs(np.corrcoef(label[1:], label[:-1])[0, 1]) < 4 / np.sqrt(len(label))
    assert abs(label[: len(label) // 2].mean() - 0.5) < 4 * np.sqrt(0.25 / len(label))


def surprise(result, distribution):
    """Chi-square of the drawn items against what each user's own outside promises, and its limit."""
    items, events = result.table("items"), result.table("events/part-00000").to_pandas()
    owned = np.zeros((result.info.counts.users, len(items)), bool)
    owned[events.user_index, events.item_index] = True
    weights = np.ones(len(items)) if distribution == "uniform" else items["train_count"].to_numpy().astype(float)
    chances = np.where(owned, 0.0, weights)
    chances /= chances.sum(axis=1, keepdims=True)
    rows = pa.concat_tables([result.table(f"{part}/part-00000") for part in PARTS]).to_pandas()
    rows = rows[rows.label == 0]
    expected = chances[rows.user_index].sum(axis=0)
    found = np.bincount(rows.item_index, minlength=len(items))
    possible = expected > 0
    assert not found[~possible].any() or distribution == "popularity"
    return float(((found - expected)[possible] ** 2 / expected[possible]).sum()), chi2.ppf(1 - 1e-6, possible.sum() - 1)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("users", [2, 300])
def test_frequencies(run, users, distribution):
    """Over many users, and over many events of two, who between them leave nothing undrawn."""
    rng = np.random.default_rng(2)
    popular = 1 / np.arange(1, 31)
    item = rng.choice(30, 3000, p=popular / popular.sum())
    user = item % 2 if users == 2 else rng.integers(0, users, 3000)
    log = {"user": user, "item": item, "time": np.arange(3000)}
    result = run(log, split={"kind": "random"}, **drawn(1, distribution))
    statistic, limit = surprise(result, distribution)
    assert statistic < limit
    statistic, limit = surprise(result, {"uniform": "popularity", "popularity": "uniform"}[distribution])
    assert statistic > 5 * limit


def test_each_draw_is_by_weight_among_what_is_left():
    """Two draws in small worlds, against their exact chances together; own sets of all sizes, weights of zero."""
    rng = np.random.default_rng(3)
    weights = np.array([0, 3, 1, 5, 0, 2, 4])
    own = [set(rng.choice(7, size, replace=False)) for size in (0, 1, 2, 3, 4) for _ in range(2)]
    users = np.repeat(np.arange(len(own), dtype=np.int32), [len(items) for items in own])
    items = np.concatenate([sorted(items) for items in own]).astype(np.int32)
    outside = Outside(weights, users, items, len(own))
    keys = rng.integers(0, 2**63, 40_000).astype(np.uint64)
    for user, mine in enumerate(own):
        weight = np.where([n in mine for n in range(7)], 0, weights)
        free = np.count_nonzero(weight)
        assert outside.sizes(np.array([user])) == [free]
        found = outside.draw(keys, np.full(len(keys), user), min(free, 2))
        first = weight / weight.sum()
        np.testing.assert_allclose(np.bincount(found[:, 0], minlength=7) / len(keys), first, atol=0.012)
        if free > 1:
            rest = np.where(np.eye(7, dtype=bool), 0, weight) * (weight[:, None] > 0)  # [first, second]
            both = first[:, None] * rest / np.maximum(rest.sum(axis=1, keepdims=True), 1)
            pairs = np.bincount(7 * found[:, 0] + found[:, 1], minlength=49) / len(keys)
            np.testing.assert_allclose(pairs.reshape(7, 7), both, atol=0.012)
        everything = outside.draw(keys[:50], np.full(50, user), free)
        assert {tuple(sorted(row)) for row in everything.tolist()} == {tuple(np.flatnonzero(weight))}


def test_draws_of_one_row_are_independent():
    """Each of the 120 ordered triples of six items comes as often."""
    nobody = np.array([], np.int32)
    outside = Outside(np.ones(6, np.int64), nobody, nobody, 1)
    keys = np.random.default_rng(4).integers(0, 2**63, 60_000).astype(np.uint64)
    triples = outside.draw(keys, np.zeros(len(keys), np.int64), 3) @ np.array([36, 6, 1])
    found = np.bincount(triples, minlength=216)
    assert np.count_nonzero(found) == 120
    np.testing.assert_allclose(found[found > 0], len(keys) / 120, rtol=0.25)


def test_noise_is_splitmix64():
    """The generator's published first numbers from seed 0."""
    found = noise(np.zeros(3, np.uint64), np.arange(3))
    assert [f"{x:016x}" for x in found.tolist()] == ["e220a8397b1dcdaf", "6e789e6aa1b965f4", "06c45d188009454f"]


SMALL = {"user": [*"aaaa", *"bbb"], "item": [*"wxyz", *"wxv"], "time": [1, 2, 3, 4, 1, 2, 3]}


def test_a_user_who_leaves_just_enough(run):
    """a leaves v alone, b leaves y and z."""
    result = run(SMALL, split={"kind": "leave_last_out"}, **drawn(1))
    found = {(row["user"], row["item"]) for part in PARTS for row in result.examples(part) if not row["label"]}
    assert ("a", "v") in found
    assert found <= {("a", "v"), ("b", "y"), ("b", "z")}


@pytest.mark.parametrize(
    ("count", "distribution", "left"),
    [(2, "uniform", "user 'a' leaves 1 items"), (1, "popularity", "user 'a' leaves 0 items")],
)
def test_a_user_with_nearly_all_items(run, tmp_path, count, distribution, left):
    """By popularity v cannot be drawn: it has no training event."""
    with pytest.raises(DataError) as caught:
        run(SMALL, split={"kind": "leave_last_out"}, **drawn(count, distribution))
    (problem,) = caught.value.problems
    assert problem.place == "data.sampled_negatives"
    assert left in problem.found
    assert f"at least {count}" in problem.expected
    assert "per_positive" in problem.cure
    assert not [path for path in tmp_path.iterdir() if "prepared" in path.name], "something is left"
