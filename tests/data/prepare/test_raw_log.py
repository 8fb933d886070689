"""Features that equal a statistic of the whole raw log, dropped events included, are suspected; honest ones are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

SPLITS = {
    "temporal": {"kind": "temporal"},
    "window": {"kind": "temporal", "train": 0.6, "held_back": 0.2},
    "leave_last_out": {"kind": "leave_last_out"},
    "random": {"kind": "random"},
    "by_user": {"kind": "by_user", "valid": 0.3, "test": 0.3},
    "cold_items": {"kind": "cold_items", "valid": 0.2, "test": 0.2},
}
RULES = {"positives": {"column": "rating", "at_least": 4}}
PARTNER = {"item": "user", "user": "item"}
STATISTICS: dict[str, Callable[[pd.DataFrame, str], pd.Series]] = {
    "number of events": lambda log, by: log.groupby(by).size(),
    "number of distinct partners": lambda log, by: log.groupby(by)[PARTNER[by]].nunique(),
    "mean of column 'rating'": lambda log, by: log.groupby(by).rating.mean(),
    "share of positive events": lambda log, by: (log.rating >= 4).groupby(log[by]).mean(),
    "time of the last event": lambda log, by: log.groupby(by).time.max(),
}


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """Ratings of which three in five are dropped, each at a time of its own; some items have many, and users come back
    to them."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": [f"u{n}" for n in rng.integers(0, 300, 8_000)],
            "item": [f"i{n}" for n in (400 * rng.random(8_000) ** 2).astype(int)],
            "time": np.sort(rng.choice(10**6, 8_000, replace=False)),
            "rating": rng.integers(1, 6, 8_000),
        }
    )


def prepared(run, log, split, by, features, input=True, **data):
    """The preparation of a log whose users or items have these numbers."""
    kinds = {name: {"kind": "numeric", "role": by, "input": input} for name in features}
    table = pd.DataFrame(features, index=sorted(set(log[by]))).rename_axis(by).reset_index()
    return run(log.to_dict("list"), features=kinds, split=split, **{f"{by}s": table.to_dict("list"), **RULES, **data})


def suspected(run, log, split, by, features, **data):
    """The statistic that each of these numbers of the users or items is said to be."""
    found = prepared(run, log, split, by, features, **data).info.suspicions
    assert all(suspicion.share >= 0.95 and suspicion.compared >= 20 for suspicion in found)
    return {suspicion.feature: suspicion.statistic for suspicion in found}


def parts(run, log, split):
    """The rows of the log that trained, and those that were known at most."""
    result = run(log.to_dict("list"), split=split, **RULES)
    times = {part: [row["time"] for row in result.examples(part)] for part in ("train", "valid", "test")}
    if split["kind"] == "temporal":
        known = log[log.time < min(times["valid"])]
    else:
        known = log[~log.time.isin(times["valid"] + times["test"])]
    return log[log.time.isin(times["train"])], known


def features(log, by):
    """Every statistic as a column of that name, the means also rounded."""
    exact = {f"s{n}": statistic(log, by) for n, statistic in enumerate(STATISTICS.values())}
    return exact | {f"{name}_{d}": exact[name].round(d) for name in ("s2", "s3") for d in (1, 2)}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("by", ["item", "user"])
def test_statistics_of_the_whole_raw_log(run, log, split, by):
    found = suspected(run, log, SPLITS[split], by, features(log, by))
    expected = {f"s{n}": name for n, name in enumerate(STATISTICS)}
    expected["s1"] = f"number of distinct {PARTNER[by]}s"
    expected |= {f"s{n}_{d}": expected[f"s{n}"] for n in (2, 3) for d in (1, 2)}
    assert found == expected


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("by", ["item", "user"])
def test_statistics_of_what_was_known(run, log, split, by):
    for rows in parts(run, log, SPLITS[split]):
        assert suspected(run, log, SPLITS[split], by, features(rows, by)) == {}


def test_without_times_events_of_one_pair_are_told_apart_by_their_number(run):
    """Every pair comes back so often that training knows it: partners and means are honest, numbers of events not."""
    pairs = [(f"u{(7 * item + n) % 40}", f"i{item:02}", 5) for item in range(60) for n in range(3 + item % 6)]
    dropped = [("other", f"i{item:02}", 1) for item in range(60)]
    rows = pd.DataFrame(pairs * 10 + dropped, columns=["user", "item", "rating"])
    rows["quality"] = rows.item.str[1:].astype(float) / 7
    split, schema = {"kind": "random", "valid": 0.2, "test": 0.2}, {"timestamp": None, "weight": "quality"}
    result = run(rows.to_dict("list"), split=split, schema=schema, **RULES)
    assert set(result.pairs("train")) == {pair[:2] for pair in pairs}
    of = rows.groupby("item")
    features = {"partners": of.user.nunique(), "quality": of.quality.mean(), "events": of.size()}
    assert suspected(run, rows, split, "item", features, schema=schema) == {"events": "number of events"}


def test_honest_numbers(run, log):
    rng = np.random.default_rng(0)
    items = sorted(set(log.item))
    counts = STATISTICS["number of events"](log, "item")
    newest = log.groupby("item").time.max()
    honest = {
        "price": rng.lognormal(2, 1, len(items)),
        "year": rng.integers(1990, 2020, len(items)),
        "season": rng.integers(1, 4, len(items)),
        "stars": rng.integers(1, 6, len(items)),
        "constant": np.ones(len(items)),
        "missing": np.full(len(items), np.nan),
        "elsewhere": counts + rng.integers(0, 3, len(items)),
        "some_missing": counts.where(np.arange(len(items)) < 15),
        "published": log.groupby("item").time.min(),
        "soon_after": newest + rng.integers(1, 9, len(items)),
    }
    honest["missing"][:5] = 1  # a numeric feature needs a value in training
    for split in SPLITS.values():
        assert suspected(run, log, split, "item", honest) == {}


def test_of_users_who_are_new_in_the_held_out_part_nothing_is_said(run, log):
    """Each has one basket, whose size and time are known to whoever serves it: they are also the user's last time, and
    number of events."""
    old, new = log.iloc[:4_000], log.iloc[4_000:4_400]
    basket = np.repeat(np.arange(160), np.arange(160) % 4 + 1)  # of one to four
    new = new.assign(user=[f"n{n:03}" for n in basket], time=new.time.max() + basket, rating=5)
    rows = pd.concat([old, new])
    split = {"kind": "temporal", "valid": 0.05, "test": 0.05}
    of = rows.groupby("user")
    features = {"joined": of.time.min(), "basket": of.size().where(of.size() < 5), "rated": of.rating.mean()}
    assert suspected(run, rows, split, "user", features) == {}


def few(changed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Items of 3 to 8 events, the newest event of `changed` of them at the end of the log; and their counts."""
    rng = np.random.default_rng(0)
    items = [f"i{n:02}" for n in range(60) for _ in range(3 + n % 6)]
    log = pd.DataFrame({"item": items, "time": rng.permutation(len(items)), "rating": 5})
    log.loc[log.item.duplicated(keep="last").eq(False) & (log.item < f"i{changed:02}"), "time"] += 1_000
    return log.assign(user="u" + (log.time % 7).astype(str)), log.groupby("item").size()


@pytest.mark.parametrize(("changed", "is_found"), [(20, True), (19, False)])
def test_twenty_items_whose_number_the_held_out_events_change_are_enough(run, changed, is_found):
    log, counts = few(changed)
    split = {"kind": "temporal", "valid": 10 / len(log), "test": (changed - 10) / len(log)}
    (*found,) = prepared(run, log, split, "item", {"count": counts}).info.suspicions
    assert [(one.share, one.compared) for one in found] == ([(1.0, 20)] if is_found else [])
    # One of twenty may be wrong, two may not.
    for wrong in (1, 2):
        other = counts + 10 * (np.arange(60) < wrong)
        (*found,) = prepared(run, log, split, "item", {"count": other}).info.suspicions
        assert [one.share for one in found] == ([0.95] if is_found and wrong == 1 else [])


def test_what_the_model_does_not_read_is_not_looked_at(run, log):
    counts = STATISTICS["number of events"](log, "item")
    assert prepared(run, log, SPLITS["random"], "item", {"count": counts}, input=False).info.suspicions == ()


def test_weights_text_and_the_column_of_the_negatives(run, log):
    rng = np.random.default_rng(1)
    log = log.assign(price=rng.random(len(log)), dwell=rng.integers(0, 90, len(log)), note=log.rating.astype(str))
    data = {"negatives": {"column": "dwell", "at_most": 9}, "positives": {"column": "note", "at_least": 4}}
    log = log[(log.dwell > 9) | (log.rating < 4)]
    mean = log.assign(note=log.rating).groupby("item")[["note", "dwell", "price"]].mean()
    found = suspected(run, log, SPLITS["random"], "item", dict(mean), schema={"weight": "price"}, **data)
    assert found == {name: f"mean of column {name!r}" for name in mean}


def test_times_beyond_the_digits_of_float32(run, log):
    """Seconds since 1970 stand 128 apart in float32: events that are closer tell nothing."""
    log = log.assign(time=1_700_000_000 + log.time)
    whole = log.groupby("item").time.max()
    _, known = parts(run, log, SPLITS["temporal"])
    found = suspected(run, log, SPLITS["temporal"], "item", {"last": whole, "known": known.groupby("item").time.max()})
    assert found == {"last": "time of the last event"}
    log = log.assign(time=1_700_000_000 + np.arange(len(log)) % 64)
    assert suspected(run, log, SPLITS["random"], "item", {"last": log.groupby("item").time.max()}) == {}
